"""Runs that begin with results of other runs: what is taken over, what is done anew, and what is refused."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import until

from eventic_core import Invalid, InvalidStateError, Record, UnknownJob
from eventic_core.graph import NodeState
from eventic_core.jobs import DagRun, ExecutionStatus, JobContext, dag, job

pytestmark = pytest.mark.usefixtures("workers")
S, N = ExecutionStatus, NodeState
CALLS: Counter[str] = Counter()
FAILING: set[str] = set()
GATE = threading.Event()


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    CALLS.clear()
    FAILING.clear()
    GATE.set()
    yield
    GATE.set()


class Bale(Record, class_type="DagForksBale"):
    job: str


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


def called(context: JobContext) -> None:
    CALLS[context.job] += 1
    Bale(job=context.job)
    if context.job in FAILING:
        raise ValueError(f"{context.job} is broken")


@job
def cut(context: JobContext, fields: int = 2) -> list[int]:
    called(context)
    return list(range(fields))


@job
def dried(cut: list[int], context: JobContext, days: int = 3) -> int:
    called(context)
    return len(cut) * days


@job
def weighed(cut: list[int], context: JobContext) -> int:
    called(context)
    return sum(cut)


@job
def held_up(context: JobContext) -> int:
    called(context)
    assert GATE.wait(100)
    return 7


@job
def bound(dried: int, weighed: int, context: JobContext) -> str:
    called(context)
    return f"{dried} {weighed}"


HAY = dag("forks: hay", cut, dried, weighed, held_up, bound)


def test_a_fork_does_a_job_and_what_comes_after_it_anew_and_takes_over_the_rest() -> None:
    source = ended(HAY.start(fields=3, correlation_id="summer"))
    made = ended(source.fork("dried", days=5))
    assert (made.status, made.forked_from, made.attempt, made.correlation_id) == (S.COMPLETED, source.id, 1, "summer")
    assert (made.parameters, source.parameters) == ({"fields": 3, "days": 5}, {"fields": 3})
    assert (source.result("bound"), made.result("bound"), made.result("cut")) == ("9 3", "15 3", [0, 1, 2])
    assert Counter({"cut": 1, "dried": 2, "weighed": 1, "held_up": 1, "bound": 2}) == CALLS
    taken, original = made.job_run("weighed"), source.job_run("weighed")
    assert taken is not None
    assert original is not None
    assert (taken.because, made.why("weighed")) == (f"taken over from run {source.id}",) * 2
    assert (taken.started_at, taken.finished_at, taken.attempt_count) == (
        original.started_at,
        original.finished_at,
        original.attempt_count,
    )
    assert (taken.dag_run_id, taken.number, taken.stamp.calls) == (made.id, original.number, "fork")
    assert [one.job for one in made.job_runs()] == ["cut", "dried", "weighed", "held_up", "bound"]
    bales = [bale.job for bale in Bale.where().all() if str(bale.stamp.workflow_id) == str(made.id)]
    assert sorted(bales) == ["bound", "dried"]
    assert source.refresh() is None
    assert source.status == S.COMPLETED


def test_without_a_job_a_fork_does_what_failed_anew_and_the_run_it_is_of_stays() -> None:
    FAILING.add("weighed")
    source = ended(HAY.start())
    assert source.status == S.FAILED
    FAILING.clear()
    made = ended(source.fork())
    assert (made.status, made.result("bound")) == (S.COMPLETED, "6 1")
    assert Counter({"cut": 1, "dried": 1, "weighed": 2, "held_up": 1, "bound": 1}) == CALLS
    assert source.refresh() is None
    assert (source.status, source.states()["bound"]) == (S.FAILED, N.UPSTREAM_FAILED)
    with pytest.raises(Invalid, match="no job has failed"):
        made.fork()
    with pytest.raises(Invalid, match="Name a job"):
        made.fork([])


def test_failures_are_taken_over_as_they_are_and_decide_what_follows() -> None:
    FAILING.add("weighed")
    source = ended(HAY.start())
    made = ended(source.fork(["dried", "held_up"]))
    assert (made.status, made.error_summary) == (S.FAILED, "1 of 5 jobs failed: weighed.")
    assert made.states() == source.states()
    assert Counter({"cut": 1, "dried": 2, "weighed": 1, "held_up": 2}) == CALLS
    assert made.why("weighed") == f"taken over from run {source.id}: weighed is broken"
    assert made.why("bound") == "skipped: weighed failed"
    failed = made.job_run("weighed")
    assert failed is not None
    assert (failed.status, failed.error_type) == (S.FAILED, "ValueError")


def test_a_fork_may_be_run_again_marked_and_forked_like_any_run() -> None:
    FAILING.add("bound")
    first = ended(HAY.start())
    second = ended(first.fork("weighed"))
    third = ended(second.fork("bound"))
    assert third.why("cut") == f"taken over from run {second.id}: taken over from run {first.id}"
    third.mark("bound", reason="by hand", result="as if")
    assert (ended(third).status, third.result("bound")) == (S.COMPLETED, "as if")
    FAILING.clear()
    assert second.rerun("cut") == ["cut", "dried", "weighed", "bound"]
    assert ended(second).status == S.COMPLETED
    assert (CALLS["cut"], CALLS["held_up"]) == (2, 1)


def test_a_run_that_goes_on_is_forked_once_what_is_taken_over_has_ended() -> None:
    GATE.clear()
    source = HAY.start()
    until(lambda: source.states()["bound"] == N.COMPLETED)
    with pytest.raises(InvalidStateError, match=r"'held_up' of run .* is READY, which does not allow a fork"):
        source.fork("bound")
    made = source.fork(["bound", "held_up"])
    assert (made.forked_from, CALLS["cut"]) == (source.id, 1)
    GATE.set()
    assert (ended(made).status, ended(source).status) == (S.COMPLETED, S.COMPLETED)
    assert Counter({"cut": 1, "dried": 1, "weighed": 1, "held_up": 2, "bound": 2}) == CALLS


def test_a_fork_that_makes_no_sense_is_refused_and_starts_nothing() -> None:
    source = ended(HAY.start(fields=2))
    before = DagRun.where().count()
    with pytest.raises(UnknownJob, match="'dryed'"):
        source.fork("dryed")
    with pytest.raises(Invalid, match="takes no parameter 'width'; it takes: days, fields"):
        source.fork("dried", width=3)
    with pytest.raises(Invalid, match="argument 'days' does not fit int"):
        source.fork("dried", days="many")
    with pytest.raises(Invalid, match="'fields' would change nothing: the results of 'cut', which takes it, are taken"):
        source.fork("dried", fields=9)
    assert DagRun.where().count() == before
    assert CALLS["dried"] == 1


def stage(number: int, **options: Any) -> Any:
    @job(name=f"s{number}", **options)
    def work() -> Any:
        return []

    return work


STAGES = [stage(0), stage(1), stage(2, depends_on=["s0"])]


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ([*STAGES, stage(3)], "job 's3' is new"),
        (STAGES[1:1] + STAGES[:2], "job 's2' is gone"),
        ([*STAGES[:2], stage(2, depends_on=["s1"])], "job 's2' waits for s1, and then waited for s0"),
        ([*STAGES[:2], stage(2)], "job 's2' waits for nothing, and then waited for s0"),
        (
            [*STAGES[:2], stage(2, depends_on=["s0"], rule="all_done")],
            "job 's2' has the rule all_done, and then had all_success",
        ),
        ([stage(0, branch=True), *STAGES[1:]], "job 's0' chooses what follows"),
    ],
)
def test_a_run_of_what_is_another_dag_now_is_not_forked(now: list[Any], difference: str) -> None:
    source = ended(dag("forks: stages", *STAGES).start())
    dag("forks: stages", *now)
    with pytest.raises(Invalid, match=f"is not what run {source.id} did: {difference}"):
        source.fork("s1")


def test_jobs_that_are_listed_in_another_order_now_are_the_same_dag() -> None:
    FAILING.add("weighed")
    source = ended(dag("forks: order", cut, dried, weighed, bound).start())
    dag("forks: order", bound, weighed, dried, cut)
    FAILING.clear()
    made = ended(source.fork())
    assert (made.status, made.result("bound"), CALLS["dried"]) == (S.COMPLETED, "6 1", 1)
    assert [one.job for one in made.job_runs()] == ["bound", "weighed", "dried", "cut"]


@job(branch=True)
def way() -> list[str]:
    CALLS["way"] += 1
    return ["left"]


@job(depends_on=[way])
def left() -> int:
    CALLS["left"] += 1
    return 1


@job(depends_on=[way])
def right() -> int:
    CALLS["right"] += 1
    return 1


@job(rule="all_done", depends_on=[left, right])
def met() -> None:
    CALLS["met"] += 1


def test_what_a_branch_chose_is_taken_over_with_it() -> None:
    source = ended(dag("forks: ways", way, left, right, met).start())
    made = ended(source.fork(["left", "right"]))
    assert made.states() == {"way": N.COMPLETED, "left": N.COMPLETED, "right": N.SKIPPED, "met": N.COMPLETED}
    assert made.why("right") == "skipped: way did not choose it"
    assert Counter({"way": 1, "left": 2, "met": 2}) == CALLS


@job
def numbers() -> list[int]:
    return [1, 2, 3]


@job(map="numbers")
def squared(numbers: int) -> int:
    CALLS["squared"] += 1
    return numbers**2


@job
def total(squared: list[int]) -> int:
    return sum(squared)


def test_the_results_of_a_mapped_job_are_taken_over() -> None:
    source = ended(dag("forks: mapped", numbers, squared, total).start())
    made = ended(source.fork("total"))
    assert (made.status, made.result("squared"), made.result("total")) == (S.COMPLETED, [1, 4, 9], 14)
    assert CALLS["squared"] == 3
    again = ended(made.fork("squared"))
    assert (again.status, again.result("total"), CALLS["squared"]) == (S.COMPLETED, 14, 6)


def test_a_run_of_a_stored_dag_is_forked_as_it_began_whatever_the_records_say_now() -> None:
    stored = HAY.stored("farm")
    source = ended(stored.start(days=2))
    stored.jobs["dried"].update(parameters={"days": 50})
    made = ended(source.fork("dried"))
    assert (made.status, made.result("bound"), made.client_id) == (S.COMPLETED, "4 1", "farm")
    assert Counter({"cut": 1, "dried": 2, "weighed": 1, "held_up": 1, "bound": 2}) == CALLS
    assert [one.job_id for one in made.job_runs()] == [one.job_id for one in source.job_runs()]
    assert made.job_runs()[0].job_id == stored.jobs["cut"].id
