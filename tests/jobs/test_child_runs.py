"""Jobs that start a run and end with it: a DAG in a DAG, an automation's run; and records handed from job to job."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from conftest import rows, until

from eventic_core import Eventic, Record
from eventic_core.automation import Run, automation
from eventic_core.graph import NodeState
from eventic_core.jobs import DagRun, ExecutionStatus, Retry, dag, job
from eventic_core.store.waits import WaitTable

pytestmark = pytest.mark.usefixtures("workers")
S, N = ExecutionStatus, NodeState
CALLS: Counter[str] = Counter()
GATE = threading.Event()


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    CALLS.clear()
    GATE.set()
    yield
    GATE.set()


class Parcel(Record, class_type="ChildRunParcel"):
    name: str


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


@automation("children: pack")
def pack(item: dict[str, Any]) -> str:
    assert GATE.wait(100)
    if item["name"] == "broken":
        raise ValueError("it does not fit the box")
    Parcel(name=item["name"])
    return str(item["name"])


@job
def orders(names: list[str]) -> list[str]:
    return names


@job(retry=Retry(max_attempts=2, delay_seconds=0))
def packing(orders: list[str]) -> Run:
    CALLS["packing"] += 1
    return pack.start(pack.batch(f"{orders} {time.monotonic()}", [{"name": name} for name in orders]))


@job
def invoice(packing: Run) -> list[str]:
    return sorted(line.split('"result": "')[1].split('"')[0] for line in packing.results())


SHIPPING = dag("children: shipping", orders, packing, invoice)


def test_a_job_ends_with_the_automation_run_it_started() -> None:
    run = ended(SHIPPING.start(names=["cup", "plate"]))
    assert (run.status, run.result("invoice")) == (S.COMPLETED, ["cup", "plate"])
    child = run.result("packing")
    assert isinstance(child, Run)
    assert child.status == S.COMPLETED
    part = run.job_run("packing")
    assert part is not None
    assert part.child_run_id == child.id
    assert part.started_at is not None
    assert child.started_at is not None
    assert part.started_at < child.started_at
    assert [str(version.status) for version in part.history()] == ["COMPLETED", "PROCESSING", "PROCESSING", "PENDING"]
    assert CALLS["packing"] == 1


def test_while_the_run_goes_on_its_job_is_running_and_says_what_it_waits_for() -> None:
    GATE.clear()
    run = SHIPPING.start(names=["vase"])
    until(lambda: run.states()["packing"] is N.RUNNING)
    part = run.job_run("packing")
    assert part is not None
    assert run.why("packing") == f"waiting for run {part.child_run_id}"
    assert run.why("invoice") == "waiting for: packing"
    GATE.set()
    assert ended(run).status == S.COMPLETED


def test_a_job_whose_run_fails_has_failed_and_is_retried_like_any_other() -> None:
    run = ended(SHIPPING.start(names=["broken"]))
    assert run.states() == {"orders": N.COMPLETED, "packing": N.FAILED, "invoice": N.UPSTREAM_FAILED}
    part = run.job_run("packing")
    assert part is not None
    assert (part.attempt_count, part.error_type, CALLS["packing"]) == (2, "ChildRunFailed", 2)
    assert "1 of 1 items failed: 1 ValueError." in run.why("packing")


def test_a_job_whose_run_is_cancelled_by_hand_is_cancelled() -> None:
    GATE.clear()
    run = SHIPPING.start(names=["jug"])
    until(lambda: run.states()["packing"] is N.RUNNING)
    part = run.job_run("packing")
    assert part is not None
    Run.hydrate(part.child_run_id).cancel("out of boxes")
    GATE.set()
    assert ended(run).states()["packing"] is N.CANCELLED
    assert "out of boxes" in run.why("packing")


def test_cancelling_a_run_cancels_the_runs_its_jobs_wait_for() -> None:
    GATE.clear()
    run = SHIPPING.start(names=["bowl"])
    until(lambda: run.states()["packing"] is N.RUNNING)
    part = run.job_run("packing")
    assert part is not None
    run.cancel("closed for today")
    GATE.set()
    child = Run.hydrate(part.child_run_id)
    assert (child.status, child.cancellation_reason) == (S.CANCELLED, "closed for today")
    assert run.states()["packing"] is N.CANCELLED
    assert Parcel.where(name="bowl").count() == 0


@job
def stem(depth: int) -> int:
    return depth


@job(depends_on=["stem"])
def leaf(stem: int) -> int:
    assert GATE.wait(100)
    return stem + 1


@job
def subtree(stem: int) -> DagRun:
    if stem == 0:
        return LEAVES.start(depth=stem)
    return TREE.start(depth=stem - 1)


@job
def crown(subtree: DagRun, stem: int) -> int:
    inner: int = subtree.result("leaf" if stem == 0 else "crown")
    return inner + 10


LEAVES = dag("children: leaves", stem, leaf)
TREE = dag("children: tree", stem, subtree, crown)


def test_dags_in_dags_hand_their_results_up() -> None:
    run = ended(TREE.start(depth=2))
    assert (run.status, run.result("crown")) == (S.COMPLETED, 31)
    inner = run.result("subtree")
    assert isinstance(inner, DagRun)
    assert (inner.dag, inner.result("crown")) == ("children: tree", 21)


def innermost(correlation_id: str) -> DagRun:
    """Wait until a tree of depth 1 waits for its leaf, and give the run of that."""
    chosen = DagRun.where(correlation_id=correlation_id).order_by(DagRun.fields.id)
    until(lambda: chosen.count() == 3)
    trees = chosen.all()[:2]
    until(lambda: all(tree.states()["subtree"] is N.RUNNING for tree in trees))
    until(lambda: chosen.all()[2].status == S.PROCESSING)
    return chosen.all()[2]


def test_cancelling_reaches_the_innermost_run() -> None:
    GATE.clear()
    run = TREE.start(depth=1, correlation_id="felled")
    leaves = innermost("felled")
    run.cancel("felled")
    GATE.set()
    assert ended(leaves).cancellation_reason == "felled"
    assert {str(one.status) for one in DagRun.where(correlation_id="felled").all()} == {"CANCELLED"}


def test_pausing_and_resuming_reach_the_innermost_run() -> None:
    GATE.clear()
    run = TREE.start(depth=1, correlation_id="winter")
    leaves = innermost("winter")
    run.pause()
    leaves.refresh()
    assert leaves.paused
    run.resume()
    leaves.refresh()
    assert not leaves.paused
    GATE.set()
    assert ended(run).result("crown") == 21


def test_a_run_that_ended_before_its_job_waited_ends_the_job_at_once() -> None:
    earlier = ended(LEAVES.start(depth=5))

    @job
    def again() -> DagRun:
        return DagRun.hydrate(earlier.id)

    run = ended(dag("children: earlier", again).start())
    result = run.result("again")
    assert isinstance(result, DagRun)
    assert result.id == earlier.id


def test_a_forgotten_wake_up_only_delays_the_end(workers: str) -> None:
    GATE.clear()
    run = SHIPPING.start(names=["glass"])
    until(lambda: run.states()["packing"] is N.RUNNING)
    with psycopg.connect(workers) as connection:
        connection.execute("delete from eventic.waits")
        connection.commit()
        GATE.set()
        part = run.job_run("packing")
        assert part is not None
        until(lambda: Run.hydrate(part.child_run_id).status == S.COMPLETED)
        connection.execute(
            "update dbos.workflow_status set delay_until_epoch_ms = 0 where status = 'DELAYED' "
            "and parent_workflow_id = %s",
            (str(run.id),),
        )  # as if the minute had gone by
    assert ended(run).status == S.COMPLETED


@job
def wrap(name: str) -> Parcel:
    return Parcel(name=name)


@job
def seal(wrap: Parcel) -> list[Parcel]:
    wrap.name += ", sealed"
    return [wrap, Parcel(name="bill")]


@job
def stack(seal: list[Parcel], wrap: Parcel) -> dict[str, str]:
    return {"sealed": seal[0].name, "bill": seal[1].name, "wrapped": wrap.name}


PARCELS = dag("children: parcels", wrap, seal, stack)


def waits(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "select run_id, work_id from eventic.waits")


def test_nothing_waits_any_more_for_a_run_that_ended_before_it_was_waited_for(
    workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    park = WaitTable.park

    def late(table: WaitTable, work_id: str, owner: str, run_ids: list[UUID]) -> bool:
        GATE.set()
        until(lambda: Run.hydrate(run_ids[0]).status == S.COMPLETED)
        return park(table, work_id, owner, run_ids)

    GATE.clear()
    monkeypatch.setattr(WaitTable, "park", late)
    assert ended(SHIPPING.start(names=["bottle"])).status == S.COMPLETED
    assert waits(workers) == []


def test_records_are_handed_on_as_the_versions_they_were() -> None:
    run = ended(PARCELS.start(name="teapot"))
    assert run.why("stack") == ""
    assert run.result("stack") == {"sealed": "teapot, sealed", "bill": "bill", "wrapped": "teapot"}
    wrapped, sealed = run.result("wrap"), run.result("seal")[0]
    assert (wrapped.id, wrapped.version) == (sealed.id, sealed.version - 1)
    part = run.job_run("wrap")
    assert part is not None
    assert part.result_payload == f"{wrapped.id}@0"


def test_async_jobs_hand_on_records_and_runs() -> None:
    @job
    async def boxed() -> Parcel:
        return await Parcel.create_async(name="async")

    @job
    async def opened(boxed: Parcel) -> DagRun:
        return await LEAVES.start_async(depth=len(boxed.name))

    assert ended(dag("children: async", boxed, opened).start()).status == S.COMPLETED


@job(branch=True)
def crossroads() -> DagRun:
    return LEAVES.start(depth=0)


@job(depends_on=["crossroads"])
def left() -> None: ...


def test_a_branch_that_gives_a_run_has_failed_for_no_run_is_a_choice() -> None:
    run = ended(dag("children: crossroads", crossroads, left).start())
    assert run.states() == {"crossroads": N.FAILED, "left": N.UPSTREAM_FAILED}
    part = run.job_run("crossroads")
    assert part is not None
    assert part.error_type == "InvalidBranch"


def test_marking_a_job_that_waits_cancels_the_run_it_waits_for() -> None:
    GATE.clear()
    run = SHIPPING.start(names=["lamp"])
    until(lambda: run.states()["packing"] is N.RUNNING)
    part = run.job_run("packing")
    assert part is not None
    assert run.mark("packing", reason="lost", status="FAILED") == []
    GATE.set()
    assert ended(run).states()["packing"] is N.FAILED
    child = Run.hydrate(part.child_run_id)
    assert (child.status, child.cancellation_reason) == (S.CANCELLED, "lost")


def test_a_run_may_be_steered_in_the_unit_of_work_that_starts_it() -> None:
    with Eventic.unit_of_work():
        run = LEAVES.start(depth=1)
        assert run.states()["stem"] is N.READY
        run.cancel("on second thoughts")
    assert ended(run).states() == {"stem": N.CANCELLED, "leaf": N.CANCELLED}
