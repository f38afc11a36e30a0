"""Jobs that a person marks: what follows, in runs that go on and runs that have ended; workers and others meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from conftest import until
from random_plans import drawn

from eventic_core import Eventic, Invalid, InvalidBranch, InvalidStateError, NotSerialisable, Record, UnknownJob
from eventic_core.graph import Choice, NodeState, TriggerRule
from eventic_core.jobs import Cancel, DagRun, ExecutionStatus, JobContext, JobRun, Retry, Skip, dag, job
from eventic_core.jobs.plan import Plan
from eventic_core.jobs.running import table

pytestmark = pytest.mark.usefixtures("workers")
S, N = ExecutionStatus, NodeState
CALLS: Counter[str] = Counter()
FAILING: set[str] = set()
GATE, OTHER_GATE = threading.Event(), threading.Event()
LOCK = threading.Lock()


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    CALLS.clear()
    FAILING.clear()
    GATE.set()
    yield
    GATE.set()
    OTHER_GATE.set()


class Parcel(Record, class_type="DagMarksParcel"):
    job: str


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


def until_done(workflow_id: str) -> None:
    handle: Any = Eventic.handle(workflow_id)
    until(lambda: handle.status() in ("SUCCESS", "CANCELLED"))


def moves(run: DagRun, name: str) -> list[str]:
    found = run.job_run(name)
    assert found is not None
    return [str(version.status) for version in reversed(found.history())]


def parcels(run: DagRun) -> list[str]:
    mine = (parcel for parcel in Parcel.where().all() if str(parcel.stamp.workflow_id).startswith(str(run.id)))
    return sorted(parcel.job for parcel in mine)


def called(context: JobContext) -> None:
    CALLS[context.job] += 1
    Parcel(job=context.job)
    if context.job in FAILING:
        raise ValueError(f"{context.job} is broken")


@job
def fetch(context: JobContext) -> int:
    called(context)
    return 1


@job
def held_up(context: JobContext) -> int:
    called(context)
    assert GATE.wait(100)
    return 2


@job
def added(fetch: int, held_up: int, context: JobContext) -> int:
    called(context)
    return fetch + held_up


@job
def sent(fetch: int, context: JobContext) -> int:
    called(context)
    return fetch


@job(rule="one_failed", depends_on=[fetch])
def alarm(context: JobContext) -> None:
    called(context)


@job
def told(added: int, sent: int, context: JobContext) -> str:
    called(context)
    return f"{added} {sent}"


LINES = dag("marks: lines", fetch, held_up, added, sent, alarm, told)


def test_a_failed_job_of_an_ended_run_is_marked_and_what_comes_after_it_is_done() -> None:
    FAILING.add("fetch")
    run = ended(LINES.start(correlation_id="case 7"))
    assert run.status == S.FAILED
    assert run.states()["alarm"] == N.COMPLETED
    with Eventic.acting(actor="ada"):
        assert run.mark("fetch", reason="read from paper", result=40) == ["added", "sent"]
    assert (run.status, run.attempt) == (S.RETRYING, 2)
    ended(run)
    assert (run.status, run.error_summary, run.result("fetch"), run.result("told")) == (S.COMPLETED, None, 40, "42 40")
    assert Counter({"fetch": 1, "held_up": 1, "added": 1, "sent": 1, "told": 1, "alarm": 1}) == CALLS
    marked = run.job_run("fetch")
    assert marked is not None
    assert (marked.because, marked.error_message, run.why("fetch")) == ("read from paper", None, "read from paper")
    assert (marked.stamp.calls, marked.stamp.actor, marked.stamp.reason) == ("mark", "ada", "read from paper")
    assert marked.stamp.correlation_id == "case 7"
    assert moves(run, "fetch") == ["PENDING", "PROCESSING", "FAILED", "COMPLETED"]
    assert moves(run, "told") == ["PENDING", "SKIPPED", "PENDING", "PROCESSING", "COMPLETED"]
    assert [version.stamp.calls for version in run.history() if version.status == S.RETRYING] == ["mark,rerun"]
    assert parcels(run) == ["added", "alarm", "held_up", "sent", "told"]


def test_a_failed_job_of_a_run_that_goes_on_is_marked_and_those_after_it_follow() -> None:
    FAILING.add("fetch")
    GATE.clear()
    run = LINES.start()
    until(lambda: run.states()["alarm"] == N.COMPLETED)
    assert run.states()["sent"] == run.states()["added"] == N.UPSTREAM_FAILED
    assert run.mark("fetch", reason="read from paper", result=40) == ["sent"]
    until(lambda: run.states()["sent"] == N.COMPLETED)
    assert run.why("added") == "waiting for: held_up"
    assert run.states()["alarm"] == N.COMPLETED
    GATE.set()
    ended(run)
    assert (run.status, run.attempt, run.result("told")) == (S.COMPLETED, 1, "42 40")
    assert max(CALLS.values()) == 1
    assert moves(run, "sent") == ["PENDING", "SKIPPED", "PENDING", "PROCESSING", "COMPLETED"]


def test_a_job_that_has_begun_stays_as_it_ended_while_the_run_goes_on() -> None:
    FAILING.update({"fetch", "alarm"})
    GATE.clear()
    run = LINES.start()
    until(lambda: run.states()["alarm"] == N.FAILED)
    assert run.mark("fetch", reason="read from paper", result=40) == ["sent"]
    GATE.set()
    ended(run)
    assert (run.states()["alarm"], CALLS["alarm"], run.error_summary) == (N.FAILED, 1, "1 of 6 jobs failed: alarm.")
    assert run.rerun() == ["alarm"]
    assert (ended(run).status, run.why("alarm")) == (S.COMPLETED, "skipped: fetch completed")


def test_a_job_that_is_being_done_is_marked_and_what_it_comes_to_is_dropped() -> None:
    GATE.clear()
    run = LINES.start()
    until(lambda: CALLS["held_up"] and run.states()["fetch"] == N.COMPLETED)
    assert run.mark("held_up", reason="it hangs", result=8) == ["added"]
    ended(run)
    assert run.result("told") == "9 1"
    GATE.set()
    until_done(f"{run.id}-j1")
    assert moves(run, "held_up")[-2:] == ["PROCESSING", "COMPLETED"]
    assert CALLS["held_up"] == 1
    assert (run.result("held_up"), run.why("held_up")) == (8, "it hangs")
    assert parcels(run) == ["added", "fetch", "sent", "told"]


@job
def patient() -> None:
    assert OTHER_GATE.wait(100)


def test_what_a_marked_job_comes_to_is_dropped_too_while_the_run_goes_on() -> None:
    GATE.clear()
    OTHER_GATE.clear()
    run = dag("marks: two held up", held_up, patient).start()
    until(lambda: CALLS["held_up"])
    run.mark("held_up", reason="it hangs", result=8)
    GATE.set()
    until_done(f"{run.id}-j0")
    assert run.refresh() is None
    assert run.status == S.PROCESSING
    OTHER_GATE.set()
    ended(run)
    assert (run.result("held_up"), CALLS["held_up"], parcels(run)) == (8, 1, [])
    assert moves(run, "held_up")[-2:] == ["PROCESSING", "COMPLETED"]


def test_a_job_that_waits_is_marked_and_those_before_it_go_on() -> None:
    GATE.clear()
    run = LINES.start()
    until(lambda: run.states()["sent"] == N.COMPLETED)
    assert run.mark("added", reason="known", result=5) == ["told"]
    until(lambda: run.states()["told"] == N.COMPLETED)
    assert run.refresh() is None
    assert run.status == S.PROCESSING
    GATE.set()
    ended(run)
    assert (run.status, run.result("told"), CALLS["added"], CALLS["held_up"]) == (S.COMPLETED, "5 1", 0, 1)
    assert moves(run, "added") == ["PENDING", "COMPLETED"]


def test_a_mark_that_leaves_nothing_to_do_ends_the_run() -> None:
    GATE.clear()
    run = dag("marks: alone", held_up).start()
    until(lambda: CALLS["held_up"])
    assert run.mark("held_up", reason="it hangs", result=8) == []
    assert ended(run).status == S.COMPLETED


def test_a_job_may_be_marked_failed_or_skipped() -> None:
    GATE.clear()
    run = LINES.start()
    until(lambda: run.states()["sent"] == N.COMPLETED)
    assert run.mark("added", reason="no use", status="FAILED") == []
    assert run.states()["told"] == N.UPSTREAM_FAILED
    assert run.mark("held_up", reason="nor this", status=S.SKIPPED) == []
    ended(run)
    GATE.set()
    assert (run.status, run.error_summary) == (S.FAILED, "1 of 6 jobs failed: added.")
    assert run.states()["held_up"] == N.SKIPPED
    assert (run.why("added"), run.why("held_up")) == ("no use", "nor this")
    with pytest.raises(InvalidStateError, match="is FAILED, which does not allow being marked FAILED"):
        run.mark("added", reason="again", status="FAILED")
    assert run.mark("added", reason="of use after all", result=3) == ["told"]
    assert (ended(run).status, run.result("told")) == (S.COMPLETED, "3 1")


CHILD = dag("marks: child", held_up)


@job
def delegated() -> DagRun:
    return CHILD.start()


@job
def checked(delegated: DagRun) -> str:
    return delegated.dag


def test_a_job_that_waits_for_a_run_is_marked_and_that_run_goes_on() -> None:
    GATE.clear()
    run = dag("marks: parent", delegated, checked).start()
    until(lambda: run.states()["delegated"] == N.RUNNING)
    (child,) = DagRun.where(dag="marks: child").all()
    assert run.why("delegated") == f"waiting for run {child.id}"
    assert run.mark("delegated", reason="it takes too long", result=child) == ["checked"]
    assert (ended(run).status, run.result("checked")) == (S.COMPLETED, "marks: child")
    GATE.set()
    ended(child)
    job_run = run.job_run("delegated")
    assert job_run is not None
    assert (job_run.status, job_run.child_run_id, job_run.because) == (S.COMPLETED, None, "it takes too long")


@job
def numbers() -> list[int]:
    return [1, 2, 3]


@job(map="numbers")
def squared(numbers: int) -> int:
    if "squared" in FAILING:
        raise ValueError("no squares today")
    return numbers**2


@job
def total(squared: list[int]) -> int:
    return sum(squared)


def test_a_mapped_job_is_marked_with_the_list_of_its_results() -> None:
    FAILING.add("squared")
    run = ended(dag("marks: mapped", numbers, squared, total).start())
    assert run.status == S.FAILED
    with pytest.raises(Invalid, match="does not fit"):
        run.mark("squared", reason="by head", result=5)
    run.mark("squared", reason="by head", result=[1, 4, 9])
    assert (ended(run).status, run.result("squared"), run.result("total")) == (S.COMPLETED, [1, 4, 9], 14)


@job(branch=True)
def way(context: JobContext) -> str:
    called(context)
    return "left"


@job(depends_on=[way])
def left() -> str:
    return "left"


@job(depends_on=[way])
def right() -> str:
    return "right"


@job(rule="none_failed", depends_on=[left, right])
def met() -> str:
    return "met"


WAYS = dag("marks: ways", way, left, right, met)


def test_a_branch_is_marked_with_a_choice_and_with_nothing_else() -> None:
    FAILING.add("way")
    run = ended(WAYS.start())
    with pytest.raises(InvalidBranch, match="'up'"):
        run.mark("way", reason="chosen by hand", result="up")
    with pytest.raises(InvalidBranch):
        run.mark("way", reason="chosen by hand", result="met")
    assert run.mark("way", reason="chosen by hand", result="right") == ["right"]
    ended(run)
    assert run.states() == {"way": N.COMPLETED, "left": N.SKIPPED, "right": N.COMPLETED, "met": N.COMPLETED}
    assert run.why("left") == "skipped: way did not choose it"


def test_a_mark_that_makes_no_sense_is_refused_and_changes_nothing() -> None:
    FAILING.add("fetch")
    run = ended(LINES.start())
    before = (run.version, moves(run, "fetch"), run.states())
    for blank in ("", "  \n"):
        with pytest.raises(Invalid, match="needs a reason"):
            run.mark("fetch", reason=blank, result=1)
    with pytest.raises(Invalid, match="the result does not fit int"):
        run.mark("fetch", reason="why not", result="many")
    with pytest.raises(Invalid, match="the result does not fit int"):
        run.mark("fetch", reason="no result is none too")
    with pytest.raises(NotSerialisable, match="JSON cannot hold"):
        run.mark("fetch", reason="why not", result=object())
    with pytest.raises(Invalid, match="COMPLETED, FAILED, SKIPPED"):
        run.mark("fetch", reason="why not", status="DONE")
    with pytest.raises(Invalid, match="gives no result"):
        run.mark("fetch", reason="why not", result=1, status="SKIPPED")
    with pytest.raises(UnknownJob, match="Did you mean 'fetch'"):
        run.mark("fetsh", reason="why not", result=1)
    with pytest.raises(InvalidStateError, match="is COMPLETED"):
        run.mark("held_up", reason="why not", result=1)
    run.refresh()
    assert (run.version, moves(run, "fetch"), run.states()) == before


def crowd(source: str) -> list[Any]:
    def one(number: int) -> Any:
        @job(name=f"{source}{number}", depends_on=[source])
        def each(context: JobContext) -> None:
            called(context)
            time.sleep(0.02)

        return each

    @job(name=source)
    def root(context: JobContext) -> int:
        called(context)
        return 0

    return [root, *map(one, range(9))]


CROWDS = dag("marks: crowds", *crowd("x"), *crowd("y"))


def test_jobs_of_a_run_that_no_worker_has_begun_are_marked_before_it_does(workers: str) -> None:
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=workers)
    run = CROWDS.start()
    assert run.mark("x", reason="known", result=1) == [f"x{number}" for number in range(9)]
    assert run.mark("y", reason="known", result=1) == [f"y{number}" for number in range(9)]
    Eventic.launch()
    assert (ended(run).status, run.attempt) == (S.COMPLETED, 1)
    assert Counter({f"{source}{number}": 1 for source in "xy" for number in range(9)}) == CALLS


def test_a_paused_run_takes_marks_and_goes_on_with_them_when_resumed() -> None:
    GATE.clear()
    run = LINES.start()
    until(lambda: run.states()["sent"] == N.COMPLETED)
    run.refresh()
    run.pause()
    assert run.mark("held_up", reason="it hangs", result=8) == ["added"]
    run.resume()
    GATE.set()
    assert (ended(run).result("told"), CALLS["added"]) == ("9 1", 1)


def test_of_many_who_mark_a_job_at_once_one_succeeds() -> None:
    for in_ended in (True, False):
        FAILING.add("fetch")
        GATE.clear()
        run = LINES.start()
        until(lambda run=run: run.states()["alarm"] == N.COMPLETED)  # type: ignore[misc]
        if in_ended:
            GATE.set()
            ended(run)
        refused: list[BaseException] = []

        def mark(number: int, run_id: Any = run.id, refused: list[BaseException] = refused) -> None:
            try:
                DagRun.hydrate(run_id).mark("fetch", reason=f"by {number}", result=number)
            except InvalidStateError as error:
                refused.append(error)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(mark, range(6)))
        GATE.set()
        ended(run)
        assert len(refused) == 5
        assert run.status == S.COMPLETED
        assert run.attempt == (2 if in_ended else 1)
        assert moves(run, "fetch").count("COMPLETED") == 1
        assert run.why("fetch") == f"by {run.result('fetch')}"


@job
def brief(context: JobContext) -> int:
    called(context)
    time.sleep(0.01)
    return 1


@job
def last(brief: int, context: JobContext) -> int:
    called(context)
    return brief


BRIEF = dag("marks: brief", brief, last)


def test_a_job_that_ends_while_it_is_marked_ends_once() -> None:
    for number in range(25):
        run = BRIEF.start()
        until(lambda: CALLS["brief"] > number)  # noqa: B023 - it is called at once
        with suppress(InvalidStateError):
            run.mark("brief", reason="quicker", result=2)
        ended(run)
        assert run.status == S.COMPLETED
        assert moves(run, "brief").count("COMPLETED") == 1
        given = run.result("brief")
        assert run.result("last") == given
        assert parcels(run) == (["last"] if given == 2 else ["brief", "last"])
    assert (CALLS["brief"], CALLS["last"]) == (25, 25)


@job
def late(context: JobContext) -> int:
    assert GATE.wait(100)
    called(context)
    return 2


@job
def sum_of(fetch: int, late: int) -> int:
    return fetch + late


def test_a_job_that_waits_again_since_one_before_it_was_marked_may_be_left_out_again() -> None:
    FAILING.update({"fetch", "late"})
    GATE.clear()
    run = dag("marks: again", fetch, late, sum_of).start()
    until(lambda: run.states()["sum_of"] == N.UPSTREAM_FAILED)
    assert run.mark("fetch", reason="known", result=1) == []
    assert run.states()["sum_of"] == N.WAITING
    GATE.set()
    ended(run)
    assert run.states() == {"fetch": N.COMPLETED, "late": N.FAILED, "sum_of": N.UPSTREAM_FAILED}
    assert run.why("sum_of") == "skipped: late failed"
    assert moves(run, "sum_of") == ["PENDING", "SKIPPED", "PENDING", "SKIPPED"]


@job
def begin() -> int:
    return 0


def sharing(number: int, *, in_transaction: bool) -> Any:
    @job(name=f"p{number}", depends_on=[begin], retry=Retry(max_attempts=3, delay_seconds=0))
    def shares(context: JobContext) -> int:
        Parcel(job=context.job)
        if number % 2 == 0:
            words = {"reason": "by itself", "result": 100}
            marking = threading.Thread(target=lambda: DagRun.hydrate(context.run_id).mark(context.job, **words))
            marking.start()
            marking.join()
            if not in_transaction:
                raise ConnectionError("too late")
        return Parcel.where(job=context.job).count() if in_transaction else number

    return shares


@pytest.mark.parametrize("in_transaction", [True, False])
def test_jobs_that_share_a_group_with_one_that_is_marked_are_done(in_transaction: bool) -> None:
    jobs = [sharing(number, in_transaction=in_transaction) for number in range(12)]
    run = ended(dag(f"marks: sharing {in_transaction}", begin, *jobs).start())
    assert run.status == S.COMPLETED
    assert [run.result(f"p{number}") for number in range(0, 12, 2)] == [100] * 6
    assert parcels(run) == sorted(f"p{number}" for number in range(1, 12, 2))


def drawn_dag(seed: int, size: int) -> tuple[Any, Plan]:
    """Make a random DAG, whose jobs end as they are told after a moment."""
    plan, outcomes = drawn(random.Random(seed), size)

    def declared(name: str) -> Any:
        @job(
            name=name,
            depends_on=plan.dag.upstream(name),
            rule=plan.rules.get(name, TriggerRule.ALL_SUCCESS),
            branch=name in plan.branches,
        )
        def work(context: JobContext) -> Any:
            with LOCK:
                CALLS[f"{context.run_id} {name}"] += 1
            Parcel(job=name)
            time.sleep(0.003)
            match outcomes[name]:
                case Choice(value):
                    return list(value)
                case N.FAILED:
                    raise ValueError(name)
                case N.CANCELLED:
                    return Cancel("as told")
                case N.SKIPPED:
                    return Skip("as told")
            return [*plan.dag.downstream(name)] if name in plan.branches else name

        return work

    return dag(f"marks: random {seed}", *map(declared, plan.names)), plan


def mark_at_random(run_id: Any, plan: Plan, chance: random.Random) -> int:
    """Mark some jobs while the run goes on, and leave the rest to itself; tells how many."""
    run, marked = DagRun.hydrate(run_id), 0
    for name in chance.sample(plan.names, 15):
        status = chance.choice([S.COMPLETED, S.COMPLETED, S.FAILED, S.SKIPPED])
        after = plan.dag.downstream(name)
        choice = chance.sample(after, chance.randint(0, len(after))) if name in plan.branches else name
        with suppress(InvalidStateError):
            run.mark(name, reason="by hand", result=choice if status is S.COMPLETED else None, status=status)
            marked += 1
        time.sleep(chance.random() / 100)
        run.refresh()
    return marked


def ends(job_run: JobRun) -> int:
    """Count how often a job has ended with what it wrote stored: each time in another attempt, and not by a mark."""
    made = [version for version in job_run.history() if version.stamp.calls in ("complete", "cancel", "skip")]
    return len([version for version in made if version.started_at is not None])


@pytest.mark.parametrize("seed", range(4))
def test_a_run_whose_jobs_are_marked_at_random_ends_with_each_job_ended_once(seed: int) -> None:
    declared, plan = drawn_dag(seed, 60)
    run = declared.start()
    chances = [random.Random(f"{seed} {number}") for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        marked = sum(pool.map(lambda chance: mark_at_random(run.id, plan, chance), chances))
    ended(run)
    states, row, job_runs = run.states(), table().read(run.id), run.job_runs()
    assert marked
    assert row is not None
    assert all(state.is_finished for state in states.values())
    assert run.status in (S.COMPLETED, S.FAILED)
    for one in job_runs:
        state = states[str(one.job)]
        assert one.status == (S.SKIPPED if state is N.UPSTREAM_FAILED else str(state))
        assert moves(run, str(one.job)).count("COMPLETED") <= 1
    assert parcels(run) == sorted(str(one.job) for one in job_runs for _ in range(ends(one)))
    left_out = [str(one.job) for one in job_runs if (one.because or "").startswith("skipped: ")]
    assert [name for name in left_out if not plan.why(row.letters, plan.place[name], row.refused)] == []
