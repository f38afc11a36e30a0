"""Runs of DAGs: order, results, rules, branches, retries, errors, cancelling; each job once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import until
from pydantic import BaseModel

from eventic_core import Eventic, Invalid, InvalidStateError, Record, ResultTimeout, UnknownJob
from eventic_core.graph import NodeState
from eventic_core.jobs import DagRun, ExecutionStatus, JobContext, Retry, Skip, Snooze, dag, job

pytestmark = pytest.mark.usefixtures("workers")
S, N = ExecutionStatus, NodeState
CALLS: Counter[str] = Counter()
GATE = threading.Event()
ORDER: list[str] = []


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    CALLS.clear()
    ORDER.clear()
    GATE.set()
    yield
    GATE.set()


class Crate(Record, class_type="DagRunCrate"):
    name: str


class Row(BaseModel):
    code: str
    size: int


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


def crates(run: DagRun) -> list[str]:
    return sorted(crate.name for crate in Crate.where().all() if crate.stamp.workflow_id == str(run.id))


@job
def rows(count: int = 2) -> list[Row]:
    return [Row(code=f"c{number}", size=number) for number in range(count)]


@job
def sizes(rows: list[Row]) -> int:
    assert all(isinstance(row, Row) for row in rows)
    return sum(row.size for row in rows)


@job
async def names(rows: list[Row], context: JobContext) -> str:
    await asyncio.sleep(0)
    return f"{context.dag}: " + ", ".join(row.code for row in rows)


@job
def stored(names: str, sizes: int) -> None:
    Crate(name=f"{names} {sizes}")


TYPED = dag("runs: typed", rows, sizes, names, stored)


def test_results_flow_typed_from_job_to_job_and_records_are_written_once() -> None:
    run = ended(TYPED.start(count=3))
    assert (run.status, run.error_summary) == (S.COMPLETED, None)
    assert run.result("rows") == [Row(code="c0", size=0), Row(code="c1", size=1), Row(code="c2", size=2)]
    assert run.result("sizes") == 3
    assert crates(run) == ["runs: typed: c0, c1, c2 3"]
    (crate,) = [crate for crate in Crate.where().all() if crate.stamp.workflow_id == str(run.id)]
    assert crate.stamp.step_id == 4
    assert [job_run.job for job_run in run.job_runs()] == ["rows", "sizes", "names", "stored"]


def test_each_status_of_a_job_is_a_version() -> None:
    run = ended(TYPED.start())
    job_run = run.job_run("sizes")
    assert job_run is not None
    assert [str(version.status) for version in reversed(job_run.history())] == ["PENDING", "PROCESSING", "COMPLETED"]
    assert job_run.attempt_count == 1
    assert job_run.duration is not None
    assert run.started_at is not None
    assert {str(version.stamp.workflow_id) for version in job_run.history()} == {str(run.id)}


def test_a_run_is_drawn_with_the_states_of_its_jobs() -> None:
    run = ended(FAILING.start())
    assert "broken" in FAILING.mermaid()
    assert run.mermaid().startswith("flowchart")
    assert "FAILED" in run.mermaid().upper()
    assert run.svg().startswith("<svg")
    assert "after_broken" in FAILING.svg()


def test_parameters_are_checked_before_anything_starts() -> None:
    before = DagRun.where().count()
    with pytest.raises(Invalid, match="takes no parameter 'size'; it takes: count"):
        TYPED.start(size=3)
    with pytest.raises(Invalid, match="argument 'count' does not fit int"):
        TYPED.start(count="many")

    @job
    def needs(path: str) -> str:
        return path

    with pytest.raises(Invalid, match="parameter 'path' of job 'needs' has no value"):
        dag("runs: needs", needs).start()
    assert DagRun.where().count() == before


@job
def fine() -> int:
    return 1


@job
def broken() -> int:
    raise LookupError("no such thing")


@job
def after_broken(broken: int) -> int:
    return broken


@job
def after_after(after_broken: int) -> int:
    return after_broken


@job(rule="all_done", depends_on=[fine, after_after])
def summary() -> str:
    return "done"


FAILING = dag("runs: failing", fine, broken, after_broken, after_after)
TIDIED = dag("runs: tidied", fine, broken, after_broken, after_after, summary)


def test_what_comes_after_a_failure_is_skipped_and_says_why() -> None:
    run = ended(FAILING.start())
    assert run.status == S.FAILED
    assert run.error_summary == "1 of 4 jobs failed: broken."
    assert run.states() == {
        "fine": N.COMPLETED,
        "broken": N.FAILED,
        "after_broken": N.UPSTREAM_FAILED,
        "after_after": N.UPSTREAM_FAILED,
    }
    assert "no such thing" in run.why("broken")
    assert run.why("after_broken") == "skipped: broken failed"
    assert run.why("fine") == ""
    skipped = run.job_run("after_after")
    assert skipped is not None
    assert (skipped.status, skipped.after_failure) == (S.SKIPPED, True)
    assert run.result("after_broken") is None
    with pytest.raises(UnknownJob, match="'fin'"):
        run.why("fin")


def test_a_job_that_takes_all_ends_runs_after_a_failure_and_makes_up_for_it() -> None:
    run = ended(TIDIED.start())
    assert (run.status, run.result("summary")) == (S.COMPLETED, "done")


@job(branch=True)
def choice(way: str) -> Any:
    return [way]


@job(depends_on=[choice])
def left() -> str:
    return "left"


@job(depends_on=[choice])
def right() -> str:
    return "right"


@job(rule="none_failed", depends_on=[left, right])
def joined() -> str:
    return "joined"


BRANCHING = dag("runs: branching", choice, left, right, joined)


def test_a_branch_follows_what_it_returns() -> None:
    run = ended(BRANCHING.start(way="right"))
    assert run.status == S.COMPLETED
    assert run.states() == {"choice": N.COMPLETED, "left": N.SKIPPED, "right": N.COMPLETED, "joined": N.COMPLETED}
    assert run.why("left") == "skipped: choice did not choose it"


def test_a_branch_that_chooses_what_is_not_there_has_failed() -> None:
    run = ended(BRANCHING.start(way="up"))
    assert run.status == S.FAILED
    assert "chose 'up'" in run.why("choice")
    failed = run.job_run("choice")
    assert failed is not None
    assert failed.error_type == "InvalidBranch"


@job(retry={ConnectionError: Retry(max_attempts=3, delay_seconds=0), OSError: Retry(max_attempts=2, delay_seconds=0.2)})
def wobbly(kind: str, good_at: int, context: JobContext) -> int:
    CALLS["wobbly"] += 1
    Crate(name=f"wobbly {context.attempt}")
    if context.attempt < good_at:
        raise ConnectionError("try again") if kind == "now" else FileNotFoundError("later")
    return context.attempt


WOBBLY = dag("runs: wobbly", wobbly)


def test_a_failed_job_is_tried_again_by_the_class_of_its_error() -> None:
    run = ended(WOBBLY.start(kind="now", good_at=3))
    assert (run.status, run.result("wobbly"), CALLS["wobbly"]) == (S.COMPLETED, 3, 3)
    job_run = run.job_run("wobbly")
    assert job_run is not None
    moves = [str(version.status) for version in reversed(job_run.history())]
    assert moves == ["PENDING", *["PROCESSING", "RETRYING"] * 2, "PROCESSING", "COMPLETED"]
    assert crates(run) == ["wobbly 3"]


def test_a_retry_that_is_due_later_comes_later() -> None:
    run = ended(WOBBLY.start(kind="later", good_at=2))
    assert (run.status, run.result("wobbly"), CALLS["wobbly"]) == (S.COMPLETED, 2, 2)


def test_a_job_fails_when_its_attempts_are_used_up() -> None:
    run = ended(WOBBLY.start(kind="later", good_at=9))
    assert (run.status, CALLS["wobbly"]) == (S.FAILED, 2)
    assert crates(run) == []


@job
def sleepy(naps: int, context: JobContext) -> Any:
    CALLS["sleepy"] += 1
    return Snooze(0.1) if CALLS["sleepy"] <= naps else context.attempt


def test_a_job_may_be_snoozed_again_and_again_at_no_cost_of_attempts() -> None:
    run = ended(dag("runs: sleepy", sleepy).start(naps=3))
    assert (run.status, run.result("sleepy"), CALLS["sleepy"]) == (S.COMPLETED, 1, 4)


@job
def picky(size: int) -> Any:
    return Skip("too small") if size < 2 else size


@job
def after_picky(picky: int) -> int:
    return picky


def test_a_job_may_skip_itself() -> None:
    run = ended(dag("runs: picky", picky, after_picky).start(size=1))
    assert run.states() == {"picky": N.SKIPPED, "after_picky": N.SKIPPED}
    assert run.status == S.COMPLETED


@job
def begun() -> int:
    CALLS["begun"] += 1
    assert GATE.wait(100)
    Crate(name="too late")
    return 1


@job
def later_on(begun: int) -> int:
    return begun


SLOW = dag("runs: slow", begun, later_on)


def test_a_waiting_job_says_what_it_waits_for_and_a_running_one_is_seen() -> None:
    GATE.clear()
    run = SLOW.start()
    until(lambda: CALLS["begun"])
    assert run.why("later_on") == "waiting for: begun"
    until(lambda: (found := run.job_run("begun")) is not None and found.status == S.PROCESSING)
    with pytest.raises(ResultTimeout, match="has not ended after"):
        run.wait(timeout_seconds=0)
    GATE.set()
    assert ended(run).status == S.COMPLETED


def test_a_cancelled_run_ends_with_all_its_jobs_and_refuses_late_results() -> None:
    GATE.clear()
    run = SLOW.start()
    until(lambda: CALLS["begun"])
    run.refresh()
    run.cancel("not wanted")
    GATE.set()
    assert run.states() == {"begun": N.CANCELLED, "later_on": N.CANCELLED}
    assert {job_run.status for job_run in run.job_runs()} == {S.CANCELLED}
    handle: Any = Eventic.handle(str(run.id))
    until(lambda: handle.status() not in ("PENDING", "ENQUEUED", "DELAYED"))
    group: Any = Eventic.handle(f"{run.id}-j0")
    until(lambda: group.status() not in ("PENDING", "ENQUEUED"))
    assert crates(run) == []
    assert run.refresh() is None
    assert (run.status, run.cancellation_reason) == (S.CANCELLED, "not wanted")
    with pytest.raises(InvalidStateError):
        run.cancel("again")


def test_a_paused_run_begins_no_more_jobs_and_goes_on_when_resumed() -> None:
    GATE.clear()
    run = SLOW.start()
    until(lambda: CALLS["begun"])
    run.refresh()
    run.pause()
    assert run.paused
    GATE.set()
    until(lambda: run.states()["begun"] == N.COMPLETED)
    group: Any = Eventic.handle(f"{run.id}-j1")
    until(lambda: group.status() == "DELAYED")
    assert run.states()["later_on"] == N.READY
    with pytest.raises(InvalidStateError, match="paused"):
        run.pause()
    run.resume()
    assert ended(run).status == S.COMPLETED
    with pytest.raises(InvalidStateError, match="ended"):
        run.resume()


def test_a_paused_run_may_be_cancelled() -> None:
    GATE.clear()
    run = SLOW.start()
    until(lambda: CALLS["begun"])
    run.refresh()
    run.pause()
    run.cancel("enough")
    GATE.set()
    assert set(run.states().values()) == {N.CANCELLED}
    assert not run.paused


BROKEN = {"source", "sink"}


@job
def source() -> int:
    CALLS["source"] += 1
    if "source" in BROKEN:
        raise ValueError("the source is broken")
    Crate(name=f"source {CALLS['source']}")
    return CALLS["source"]


@job
def aside() -> int:
    CALLS["aside"] += 1
    return 1


@job
def sink(source: int, aside: int) -> int:
    CALLS["sink"] += 1
    if "sink" in BROKEN:
        raise ValueError("the sink is broken")
    return source + aside


REPAIRED = dag("runs: repaired", source, aside, sink)


def test_what_failed_is_run_again_with_what_comes_after_it_and_keeps_its_history() -> None:
    BROKEN.update({"source", "sink"})
    run = ended(REPAIRED.start())
    assert run.states() == {"source": N.FAILED, "aside": N.COMPLETED, "sink": N.UPSTREAM_FAILED}
    BROKEN.discard("source")
    assert run.rerun() == ["source", "sink"]
    assert (run.status, run.attempt) == (S.RETRYING, 2)
    ended(run)
    assert run.states() == {"source": N.COMPLETED, "aside": N.COMPLETED, "sink": N.FAILED}
    BROKEN.clear()
    assert run.rerun("sink") == ["sink"]
    ended(run)
    assert (run.status, run.attempt, run.error_summary) == (S.COMPLETED, 3, None)
    assert Counter({"source": 2, "aside": 1, "sink": 2}) == CALLS
    assert run.result("sink") == 3
    job_run = run.job_run("sink")
    assert job_run is not None
    moves = [str(version.status) for version in reversed(job_run.history())]
    begun = ["PENDING", "PROCESSING"]
    assert moves == ["PENDING", "SKIPPED", *begun, "FAILED", *begun, "COMPLETED"]
    assert {str(version.stamp.workflow_id) for version in job_run.history()} == {
        str(run.id),
        f"{run.id}:2",
        f"{run.id}:3",
    }


def test_a_job_that_completed_is_run_again_by_name() -> None:
    BROKEN.clear()
    run = ended(REPAIRED.start())
    with pytest.raises(Invalid, match="no job has failed"):
        run.rerun()
    with pytest.raises(UnknownJob, match="'sauce'"):
        run.rerun("sauce")
    assert run.rerun("source") == ["source", "sink"]
    ended(run)
    assert (run.status, run.result("source"), CALLS["aside"]) == (S.COMPLETED, 2, 1)


def test_a_run_that_goes_on_is_not_run_again_and_a_cancelled_one_may_be() -> None:
    GATE.clear()
    run = SLOW.start()
    until(lambda: CALLS["begun"])
    run.refresh()
    with pytest.raises(InvalidStateError, match="running"):
        run.rerun()
    run.cancel("not now")
    assert run.rerun() == ["begun", "later_on"]
    until(lambda: CALLS["begun"] == 2)
    GATE.set()
    assert (ended(run).status, run.result("later_on")) == (S.COMPLETED, 1)
    written = [str(crate.stamp.workflow_id) for crate in Crate.where(name="too late").all()]
    assert [found for found in written if found.startswith(str(run.id))] == [f"{run.id}:2"]


def test_a_branch_chooses_anew_when_it_is_run_again() -> None:
    run = ended(TURNING.start())
    assert run.states() == {"turning": N.COMPLETED, "one_way": N.COMPLETED, "other_way": N.SKIPPED}
    run.rerun("turning")
    ended(run)
    assert run.states() == {"turning": N.COMPLETED, "one_way": N.SKIPPED, "other_way": N.COMPLETED}


@job(branch=True)
def turning() -> str:
    CALLS["turning"] += 1
    return "one_way" if CALLS["turning"] == 1 else "other_way"


@job(depends_on=[turning])
def one_way() -> None: ...


@job(depends_on=[turning])
def other_way() -> None: ...


TURNING = dag("runs: turning", turning, one_way, other_way)


@job
def head() -> int:
    return 0


def _layer(number: int) -> Any:
    @job(name=f"long {number}", depends_on=[head])
    def long() -> int:
        ORDER.append(str(number))
        assert GATE.wait(100)
        return number

    return long


def test_jobs_that_last_do_not_hold_up_those_that_share_their_group() -> None:
    GATE.clear()
    run = dag("runs: many that last", head, *[_layer(number) for number in range(12)]).start()
    until(lambda: len(ORDER) == 12)
    GATE.set()
    assert ended(run).status == S.COMPLETED
    assert len(ORDER) == 12


def _looking(number: int) -> Any:
    @job(name=f"looks {number}", depends_on=[head])
    def looks() -> int:
        Crate(name=f"looked {number}")
        return Crate.where(name=f"looked {number}").count()  # needs a transaction of its own

    return looks


def test_jobs_that_share_a_group_may_each_need_a_transaction_of_their_own() -> None:
    run = ended(dag("runs: looking", head, *[_looking(number) for number in range(12)]).start())
    assert run.status == S.COMPLETED
    assert crates(run) == sorted(f"looked {number}" for number in range(12))


@job(timeout_seconds=0.1)
def stuck() -> None:
    GATE.wait(60)
    Crate(name="stuck")


@job(timeout_seconds=0.1)
async def stuck_async() -> None:
    await asyncio.sleep(60)


def test_a_job_that_takes_too_long_has_failed_and_its_writes_are_lost() -> None:
    GATE.clear()
    run = ended(dag("runs: stuck", stuck, stuck_async).start())
    GATE.set()
    assert set(run.states().values()) == {N.FAILED}
    assert {job_run.error_type for job_run in run.job_runs()} == {"TimeoutError"}
    assert crates(run) == []


def test_jobs_with_a_lower_priority_begin_first() -> None:
    def named(number: int) -> Any:
        @job(name=f"p{number}", depends_on=[head], priority=number)
        def one() -> None:
            ORDER.append(str(number))

        return one

    jobs = [named(number) for number in (3, 1, 2, 0)]
    run = dag("runs: priorities", head, *jobs, concurrency=1).start()
    assert ended(run).status == S.COMPLETED
    assert ORDER == ["0", "1", "2", "3"]


def test_a_run_started_in_a_scope_that_fails_never_was() -> None:
    before = DagRun.where().count()

    def fails() -> None:
        with Eventic.unit_of_work():
            TYPED.start()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fails()
    assert DagRun.where().count() == before
