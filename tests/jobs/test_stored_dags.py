"""Stored DAGs that run: what the records say of the declared jobs that do them, as it was when the run began."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import (
    CycleFound,
    DuplicateRegistration,
    Eventic,
    Invalid,
    InvalidDag,
    NotRegistered,
    Record,
    Retry,
    UnknownJob,
)
from eventic_core.graph import NodeState, TriggerRule
from eventic_core.jobs import (
    DagRun,
    DeclaredDag,
    ExecutionStatus,
    Job,
    JobDependency,
    StoredDag,
    dag,
    definition,
    job,
    registry,
    running,
    stored_dag,
)

pytestmark = pytest.mark.usefixtures("workers")
S, N = ExecutionStatus, NodeState
GATE = threading.Event()
TRIES: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    TRIES.clear()
    GATE.set()
    yield
    GATE.set()


@pytest.fixture
def name() -> str:
    """A DAG's name that no other test has, for they share a database."""
    return f"dag-{uuid4().hex[:8]}"


class Crate(Record, class_type="StoredDagCrate"):
    name: str


@job(name="sd numbers")
def numbers(count: int = 3) -> list[int]:
    return list(range(count))


@job(name="sd total")
def total(values: list[int], start: int = 0) -> int:
    GATE.wait(30)
    return sum(values, start)


@job(name="sd tell")
def tell(amount: int, title: str = "plain") -> str:
    Crate(name=f"{title}: {amount}")
    return f"{title}: {amount}"


@job(name="sd flaky", retry={ConnectionError: Retry(max_attempts=2, delay_seconds=0), KeyError: Retry()})
def flaky(kind: str = "connection", run: str = "") -> int:
    TRIES[run] += 1
    raise ConnectionError("away") if kind == "connection" else KeyError("none")


@job(name="sd once", retry=Retry(delay_seconds=0))
def once(run: str = "") -> int:
    TRIES[run] += 1
    raise ValueError("never right")


@job(name="sd slow", timeout_seconds=30)
async def slow() -> None:
    await asyncio.sleep(20)


@job(name="sd choose", branch=True)
def choose() -> str:
    return "left"


@job(name="sd text")
def text() -> str:
    return "text"


@job(name="sd nothing")
def nothing() -> None:
    return None


def stored(name: str, *jobs: dict[str, Any], client_id: str | None = None, **waits: Any) -> dict[str, Job]:
    """Store a DAG: its jobs, and for each that waits the ones before it, with the arguments."""
    with Eventic.unit_of_work():
        made = {values["name"]: Job(dag=name, client_id=client_id, **values) for values in jobs}
        for waiting, before in waits.items():
            pairs = before.items() if isinstance(before, dict) else [(one, None) for one in before]
            for one, argument in pairs:
                JobDependency(job_id=made[waiting].id, depends_on_id=made[one].id, argument=argument)
    return made


def sums(name: str, **more: Any) -> dict[str, Job]:
    jobs = [("numbers", "sd numbers"), ("sum", "sd total"), ("tell", "sd tell")]
    values = [{"name": one, "function": function, **more.get(one, {})} for one, function in jobs]
    return stored(name, *values, sum={"numbers": "values"}, tell={"sum": "amount"}, client_id=more.get("client_id"))


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


def reread() -> None:
    """Forget what this process knows of runs, as another worker does not know it."""
    running._planned.cache_clear()
    definition._definition_of_stored.cache_clear()


# -- what a run does


def test_a_stored_dag_runs_and_hands_results_on_as_its_dependencies_say(name: str) -> None:
    jobs = sums(name, client_id="acme")
    run = ended(stored_dag(name, "acme").start(count=5, correlation_id="ext-9"))
    assert (run.status, run.error_summary) == (S.COMPLETED, None)
    assert (run.dag, run.client_id, run.correlation_id) == (name, "acme", "ext-9")
    assert run.result("tell") == "plain: 10"
    assert {job_run.job: job_run.job_id for job_run in run.job_runs()} == {key: one.id for key, one in jobs.items()}
    (crate,) = [crate for crate in Crate.where().all() if crate.stamp.workflow_id == str(run.id)]
    assert crate.name == "plain: 10"
    assert run.mermaid().startswith("flowchart")
    assert stored_dag(name, "acme").svg().startswith("<svg")
    assert "tell" in stored_dag(name, "acme").mermaid()


def test_a_stored_dag_is_started_from_an_event_loop(name: str) -> None:
    sums(name)

    async def begin() -> DagRun:
        found = await asyncio.to_thread(stored_dag, name)
        return await found.start_async(title="async")

    assert ended(asyncio.run(begin())).result("tell") == "async: 3"


def test_a_dependency_without_an_argument_waits_unless_a_parameter_is_called_like_the_job(name: str) -> None:
    values = [{"name": "amount", "function": "sd total", "parameters": {"values": [1, 2]}}]
    stored(
        name, *values, {"name": "told", "function": "sd tell"}, {"name": "sd nothing"}, told=["amount", "sd nothing"]
    )
    run = ended(stored_dag(name).start())
    assert run.result("told") == "plain: 3"
    assert run.states() == dict.fromkeys(("amount", "told", "sd nothing"), N.COMPLETED)


def test_an_argument_of_the_run_goes_before_that_of_the_record_and_that_before_the_default(name: str) -> None:
    more = {"tell": {"parameters": {"title": "record"}}, "sum": {"parameters": {"start": 10}}}
    sums(name, **more)
    assert ended(stored_dag(name).start()).result("tell") == "record: 13"
    assert ended(stored_dag(name).start(title="run")).result("tell") == "run: 13"


def test_a_rule_of_the_record_holds_and_a_branch_is_one_as_it_is_declared(name: str) -> None:
    values: list[dict[str, Any]] = [
        {"name": "choose", "function": "sd choose"},
        {"name": "left", "function": "sd once"},
        {"name": "right", "function": "sd numbers"},
        {"name": "end", "function": "sd text", "rule": "all_done"},
        {"name": "never", "function": "sd text"},
    ]
    stored(name, *values, left=["choose"], right=["choose"], end=["left", "right"], never=["left"])
    run = ended(stored_dag(name).start())
    states = [N.COMPLETED, N.FAILED, N.SKIPPED, N.COMPLETED, N.UPSTREAM_FAILED]
    assert list(run.states().values()) == states
    skipped = run.job_run("right")
    assert skipped is not None
    assert skipped.job_id == stored_dag(name).jobs["right"].id


@pytest.mark.parametrize(
    ("function", "kind", "retries", "tries"),
    [
        ("sd once", "", 0, 1),
        ("sd once", "", 2, 3),
        ("sd flaky", "connection", 0, 2),
        ("sd flaky", "connection", 3, 4),
        ("sd flaky", "key", 3, 1),
    ],
)
def test_retries_of_the_record_change_the_attempts_and_none_leave_them_as_declared(
    function: str, kind: str, retries: int, tries: int, name: str
) -> None:
    parameters = {"run": name, **({"kind": kind} if kind else {})}
    stored(name, {"name": "failing", "function": function, "retries": retries, "parameters": parameters})
    run = ended(stored_dag(name).start())
    job_run = run.job_run("failing")
    assert job_run is not None
    assert (run.status, TRIES[name], job_run.attempt_count) == (S.FAILED, tries, tries)


def test_a_timeout_of_the_record_goes_before_the_declared_one(name: str) -> None:
    stored(name, {"name": "slow", "function": "sd slow", "timeout_seconds": 0.05})
    run = ended(stored_dag(name).start())
    assert run.status == S.FAILED
    assert "Timeout" in str(getattr(run.job_run("slow"), "error_type", None))


def test_a_priority_of_the_record_goes_before_the_declared_one(name: str) -> None:
    stored(name, {"name": "early", "function": "sd text", "priority": 1}, {"name": "sd text"})
    made = definition.define(stored_dag(name))
    assert {key: one.priority for key, one in made.jobs.items()} == {"early": 1, "sd text": 5}


# -- a run and later changes


def test_a_run_goes_on_as_it_began_whatever_is_changed_in_the_records(name: str) -> None:
    GATE.clear()
    more = {"tell": {"parameters": {"title": "before"}}}
    jobs = sums(name, **more)
    run = stored_dag(name).start()
    jobs["tell"].update(name="renamed", function="nothing of the kind", parameters={}, rule="all_failed", retries=9)
    jobs["numbers"].deactivate()
    added = Job(name="added", function="sd text", dag=name)
    JobDependency(job_id=jobs["tell"].id, depends_on_id=added.id)
    reread()
    GATE.set()
    run = ended(run)
    assert (run.status, run.result("tell")) == (S.COMPLETED, "before: 3")
    assert list(run.states()) == ["numbers", "sum", "tell"]
    reread()
    assert run.rerun("sum") == ["sum", "tell"]
    again = ended(run)
    assert (again.status, again.result("tell"), again.attempt) == (S.COMPLETED, "before: 3", 2)
    job_run = again.job_run("tell")
    assert job_run is not None
    assert (job_run.job_id, job_run.max_attempts) == (jobs["tell"].id, 2)


def test_a_run_is_marked_and_forked_as_it_began(name: str) -> None:
    jobs = stored(
        name,
        {"name": "failing", "function": "sd once"},
        {"name": "told", "function": "sd tell", "parameters": {"title": "before"}},
        {"name": "left out", "function": "sd text", "rule": "all_failed"},
        client_id="acme",
        told={"failing": "amount"},
        **{"left out": ["told"]},
    )
    run = ended(stored_dag(name, "acme").start())
    assert run.states()["told"] == N.UPSTREAM_FAILED
    jobs["told"].update(parameters={}, rule="all_failed")
    reread()
    run.mark("failing", reason="known", result=7)
    assert ended(run).result("told") == "before: 7"
    forked = ended(run.fork("told", title="fork"))
    assert (forked.status, forked.client_id, forked.result("told")) == (S.COMPLETED, "acme", "fork: 7")
    assert {one.job: one.job_id for one in forked.job_runs()} == {key: one.id for key, one in jobs.items()}


def test_a_run_whose_functions_are_gone_is_looked_into_and_cancelled(name: str) -> None:
    GATE.clear()
    sums(name)
    run = stored_dag(name).start()
    known = registry._jobs.pop("sd tell")
    try:
        reread()
        assert run.why("tell") == "waiting for: sum"
        run.cancel("not wanted")
        assert run.states()["tell"] == N.CANCELLED
    finally:
        registry._jobs["sd tell"] = known
        GATE.set()
    cancelled = run.job_run("tell")
    assert cancelled is not None
    assert cancelled.job_id == stored_dag(name).jobs["tell"].id


def test_a_run_is_left_to_a_worker_that_has_declared_its_functions(name: str) -> None:
    sums(name)
    with Eventic.unit_of_work():
        run = stored_dag(name).start()
        known = registry._jobs.pop("sd tell")
    waiting = threading.Event()
    waiting.wait(0.5)  # the worker finds the run, and not the function
    run.refresh()
    assert run.status == S.PENDING
    registry._jobs["sd tell"] = known
    assert ended(run).status == S.COMPLETED


# -- declared and stored


def test_a_declared_dag_is_stored_once_and_run_with_what_people_add(name: str) -> None:
    declared = dag(name, numbers, job(name="sum", inputs={"values": numbers}, rule="all_done")(total.function))
    first = declared.stored("acme")
    assert [(one.version, one.declared, one.function) for one in first.jobs.values()] == [(0, True, None)] * 2
    assert [one.argument for one in first.dependencies] == ["values"]
    tell_job = Job(name="told", function="sd tell", dag=name, client_id="acme", priority=1)
    JobDependency(job_id=tell_job.id, depends_on_id=first.jobs["sum"].id, argument="amount")
    again = declared.stored("acme")
    assert list(again.jobs) == ["sd numbers", "sum", "told"]
    assert {one.version for one in [*again.jobs.values(), *again.dependencies]} == {0}
    run = ended(again.start(count=4))
    assert run.result("told") == "plain: 6"
    assert list(ended(declared.start()).states()) == ["sd numbers", "sum"]
    with pytest.raises(UnknownJob):
        stored_dag(name)


def redeclared(name: str, *jobs: Any) -> DeclaredDag:
    from eventic_core.jobs import declared_dag

    declared_dag._dags.pop(name, None)
    return dag(name, *jobs)


@job(name="sd both")
def both(left: int, right: int) -> int:
    return left - right


def test_a_stored_dag_follows_the_code_and_keeps_what_people_say(name: str) -> None:
    one, two = (job(name=each)(lambda: 1) for each in ("uno", "duo"))
    last = job(name="last", inputs={"left": one, "right": two})(both.function)
    first = redeclared(name, one, two, job(name="gone")(text.function), last).stored()
    first.jobs["uno"].update(retries=4, description="ours", priority=0)
    JobDependency(job_id=first.jobs["duo"].id, depends_on_id=first.jobs["uno"].id)  # of people
    Job(name="more", dag=name, function="sd text")
    swapped = job(name="last", inputs={"left": two, "right": one}, rule="all_done", priority=3)(both.function)
    found = redeclared(name, one, two, swapped).stored()
    assert list(found.jobs) == ["uno", "duo", "last", "more"]
    assert (found.jobs["uno"].retries, found.jobs["uno"].description, found.jobs["uno"].priority) == (4, "ours", 5)
    assert (found.jobs["last"].rule, found.jobs["last"].priority) == (TriggerRule.ALL_DONE, 3)
    names = {one.id: one.name for one in found.jobs.values()}
    waits = {(names[w.job_id], names[w.depends_on_id], w.argument, w.declared) for w in found.dependencies}
    assert waits == {("duo", "uno", None, False), ("last", "duo", "left", True), ("last", "uno", "right", True)}
    assert Job.where(dag=name, name="gone").count() == 0
    versions = {one.id: one.version for one in [*found.jobs.values(), *found.dependencies]}
    again = redeclared(name, one, two, swapped).stored()
    assert {one.id: one.version for one in [*again.jobs.values(), *again.dependencies]} == versions


def test_what_people_added_and_the_code_now_make_a_cycle_of_is_refused_and_nothing_is_stored(name: str) -> None:
    one, two = (job(name=each)(lambda: 1) for each in ("uno", "duo"))
    first = redeclared(name, one, two).stored()
    JobDependency(job_id=first.jobs["uno"].id, depends_on_id=first.jobs["duo"].id)
    with pytest.raises(CycleFound, match=r"uno -> duo -> uno|duo -> uno -> duo"):
        redeclared(name, one, job(name="duo", depends_on=["uno"], priority=1)(lambda: 1)).stored()
    assert stored_dag(name).jobs["duo"].priority == 5


def test_one_result_as_two_arguments_cannot_be_stored(name: str) -> None:
    one = job(name="uno")(lambda: 1)
    twice = job(name="twice", inputs={"left": one, "right": one})(both.function)
    with pytest.raises(Invalid, match="takes the result of 'uno' as 'left' and as 'right'"):
        dag(name, one, twice).stored()
    assert Job.where(dag=name).count() == 0


def test_processes_that_store_a_dag_at_once_store_it_once(name: str) -> None:
    declared = dag(name, numbers, job(name="sum", inputs={"values": numbers})(total.function))
    barrier = threading.Barrier(4)

    def begin(_number: int) -> StoredDag:
        barrier.wait()
        return declared.stored()

    for _ in range(3):
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(begin, range(4)))
        assert len({one.id for each in found for one in each.jobs.values()}) == 2
        assert len({one.id for each in found for one in each.dependencies}) == 1


@job(name="sd each", map="value")
def each(value: int, factor: int = 2) -> int:
    return value * factor


def test_a_mapped_job_of_a_declared_dag_is_run_as_it_is_stored_too(name: str) -> None:
    declared = dag(name, numbers, job(name="each", map="value", inputs={"value": numbers})(each.function))
    made = declared.stored().jobs["each"]
    assert made.map_over == "value"
    summed = Job(name="sum", function="sd total", dag=name)
    JobDependency(job_id=summed.id, depends_on_id=made.id, argument="values")
    made.update(parameters={"factor": 10})
    run = ended(stored_dag(name).start(count=4))
    assert (run.status, run.result("each"), run.result("sum")) == (S.COMPLETED, [0, 10, 20, 30], 60)


def first_of_two() -> str:
    return "first"


def second_of_two() -> int:
    return 2


def test_a_function_of_the_declared_dag_of_the_name_goes_before_others(name: str) -> None:
    declared = dag(name, job(name="sd two")(first_of_two))
    job(name="sd two")(second_of_two)
    try:
        with pytest.raises(DuplicateRegistration, match=r"first_of_two and .*second_of_two"):
            registry.find_job("sd two")
        assert ended(declared.stored().start()).result("sd two") == "first"
        stored(f"{name}-other", {"name": "sd two"})
        with pytest.raises(DuplicateRegistration):
            stored_dag(f"{name}-other").start()
    finally:
        del registry._jobs["sd two"]


# -- what is refused


def of_no_dag(_name: str) -> StoredDag:
    client = uuid4().hex
    Job(name="sd text", client_id=client)
    return stored_dag(None, client)


def with_jobs(*jobs: dict[str, Any], **waits: Any) -> Callable[[str], StoredDag]:
    def make(name: str) -> StoredDag:
        stored(name, *jobs, **waits)
        return stored_dag(name)

    return make


TEXT, SUM = {"name": "text", "function": "sd text"}, {"name": "sum", "function": "sd total"}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (of_no_dag, InvalidDag, "part of no DAG"),
        (with_jobs({"name": "nobody's"}), NotRegistered, 'No job "nobody\'s" is declared'),
        (with_jobs(TEXT, SUM, sum={"text": "values"}), InvalidDag, "text -> sum: text gives str, which does not fit"),
        (with_jobs(TEXT, SUM, sum={"text": "heap"}), InvalidDag, "'sum' has no parameter 'heap', which a dependency"),
        (with_jobs({**TEXT, "parameters": {"x": 1}}), InvalidDag, "'text' has no parameter 'x', which its record has"),
        (with_jobs(SUM), Invalid, "parameter 'values' of job 'sum' has no value"),
        (with_jobs({**SUM, "parameters": {"values": "x"}}), Invalid, "Job 'sum': argument 'values' does not fit"),
        (
            with_jobs(
                {"name": "numbers", "function": "sd numbers"},
                {**SUM, "parameters": {"values": []}},
                sum={"numbers": "values"},
            ),
            Invalid,
            "parameter 'values' of job 'sum' takes the result of 'numbers', and its record has a value",
        ),
        (
            with_jobs({"name": "each", "function": "sd each"}),
            InvalidDag,
            "must be part of a DAG that is declared under",
        ),
        (with_jobs({"name": "sd each", "map_over": "factor"}), InvalidDag, "but its function is mapped over 'value'"),
        (with_jobs({**TEXT, "map_over": "x"}), InvalidDag, "'text' is to be mapped over 'x', but its function is not"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_started(
    make: Callable[[str], StoredDag], error: type[Exception], words: str, name: str
) -> None:
    before = DagRun.where().count()
    found = make(name)
    with pytest.raises(error, match=words):
        found.start()
    assert DagRun.where().count() == before


def test_unknown_parameters_are_refused(name: str) -> None:
    sums(name)
    with pytest.raises(Invalid, match=f"'{name}' takes no parameter 'colour'; it takes: count, start, title"):
        stored_dag(name).start(colour="red")
