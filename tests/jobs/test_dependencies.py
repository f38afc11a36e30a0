"""Dependencies of stored jobs: what makes no DAG is refused when it is written, whoever else writes, and however."""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core import (
    CycleFound,
    DuplicateKey,
    Eventic,
    EventicError,
    Invalid,
    InvalidDag,
    InvalidRecord,
    ScopeError,
    UnknownJob,
)
from eventic_core.automation import DatabaseConfig, Run, UnitOfWork
from eventic_core.graph import Dag
from eventic_core.jobs import Job, JobDependency, stored_dag
from eventic_core.records.editing import current_scope
from eventic_core.records.stamp import running
from eventic_core.runtime.process import process
from eventic_core.store.sessions import session_factory

ROUNDS = 25
"""Of two sessions that each add half of a cycle at once; without a lock nearly all end with both stored."""


@pytest.fixture(autouse=True)
def url(eventic: str) -> str:
    return eventic


def made(names: str, **place: Any) -> list[Job]:
    return [Job(name=name, **place) for name in names.split()]


def wait_for(job: Job, before: Job, **values: Any) -> JobDependency:
    return JobDependency(job_id=job.id, depends_on_id=before.id, **values)


def pair(job: Job, before: Job) -> dict[str, UUID]:
    return {"job_id": job.id, "depends_on_id": before.id}


def stored() -> set[tuple[UUID, UUID]]:
    return {(one.job_id, one.depends_on_id) for one in JobDependency.where()}


# -- what is refused


def test_a_job_waits_for_others() -> None:
    a, b, c = made("a b c", dag="nightly", client_id="acme")
    wait_for(b, a, argument="rows")
    wait_for(c, a)
    assert wait_for(c, b).argument is None
    assert stored() == {(b.id, a.id), (c.id, a.id), (c.id, b.id)}


def test_a_cycle_is_refused_with_the_names_of_its_jobs() -> None:
    a, b, c, d = made("a b c d", dag="nightly")
    wait_for(b, a)
    wait_for(c, b)
    wait_for(d, a)
    with pytest.raises(CycleFound, match="a -> b -> c -> a") as caught:
        wait_for(a, c)
    assert caught.value.path == ("a", "b", "c", "a")
    assert len(stored()) == 3


def test_a_job_does_not_wait_for_itself() -> None:
    (a,) = made("a")
    with pytest.raises(CycleFound, match="a -> a"):
        wait_for(a, a)
    assert not stored()


def test_jobs_by_themselves_wait_for_each_other_too() -> None:
    a, b = made("a b")
    wait_for(b, a)
    with pytest.raises(CycleFound):
        wait_for(a, b)


@pytest.mark.parametrize("which", ["job_id", "depends_on_id"])
def test_an_unknown_or_deleted_job_is_refused(which: str) -> None:
    a, b, gone = made("a b gone")
    gone.delete()
    for unknown in (uuid4(), gone.id, wait_for(b, a).id):
        with pytest.raises(UnknownJob, match=str(unknown)):
            JobDependency(**{"job_id": a.id, "depends_on_id": a.id, which: unknown})
    assert len(stored()) == 1


def test_the_job_of_another_tenant_is_not_known() -> None:
    ours, other, nobodys = (Job(name="a", client_id=client, dag="nightly") for client in ("acme", "other", None))
    for job, before in ((ours, other), (other, ours), (ours, nobodys), (nobodys, ours)):
        with pytest.raises(UnknownJob, match=str(before.id)):
            wait_for(job, before)
    assert not stored()


def test_the_job_of_another_dag_is_refused_by_name() -> None:
    a, b, c = Job(name="a", dag="nightly"), Job(name="b", dag="hourly"), Job(name="c")
    with pytest.raises(InvalidDag, match="'a' is part of DAG 'nightly' of no tenant, 'b' of DAG 'hourly'"):
        wait_for(a, b)
    with pytest.raises(InvalidDag, match="no DAG"):
        wait_for(a, c)
    assert not stored()


def test_a_job_waits_for_another_once_and_gets_each_argument_once() -> None:
    a, b, c = made("a b c")
    wait_for(c, a, argument="rows")
    for before, values in ((a, {}), (b, {"argument": "rows"})):
        with pytest.raises(DuplicateKey):
            wait_for(c, before, **values)
    with pytest.raises(InvalidRecord, match="argument"):
        wait_for(c, b, argument="")
    wait_for(c, b, argument="more")


def test_a_dependency_that_is_changed_is_checked_again() -> None:
    a, b, c = made("a b c")
    wait_for(b, a)
    second = wait_for(c, b)
    with pytest.raises(CycleFound):
        second.update(job_id=a.id)
    with pytest.raises(UnknownJob):
        second.depends_on_id = uuid4()
    assert (second.job_id, second.version) == (c.id, 0)
    second.argument = "rows"
    second.update(depends_on_id=a.id)
    assert stored() == {(b.id, a.id), (c.id, a.id)}


# -- what is deleted and brought back


def test_a_deleted_dependency_does_not_count_until_it_is_brought_back() -> None:
    a, b = made("a b")
    first = wait_for(b, a)
    first.delete()
    second = wait_for(a, b)
    for again in (first.activate, lambda: JobDependency.restore(first.id)):
        with pytest.raises(CycleFound):
            again()
    assert stored() == {(a.id, b.id)}
    second.deactivate()
    first.activate()
    with pytest.raises(CycleFound):
        second.activate()
    assert stored() == {(b.id, a.id)}


def test_a_dependency_is_not_brought_back_for_a_deleted_job() -> None:
    a, b = made("a b")
    first = wait_for(b, a)
    first.delete()
    a.delete()
    with pytest.raises(UnknownJob):
        first.activate()
    with Eventic.unit_of_work():
        a.activate()
        first.activate()
    assert stored() == {(b.id, a.id)}


def test_a_deleted_job_takes_no_part_until_it_is_brought_back() -> None:
    a, b, c = made("a b c", dag="nightly")
    wait_for(b, a)
    wait_for(c, b)
    b.delete()
    assert stored_dag("nightly").dag.layers() == (("a", "c"),)
    other = wait_for(a, c)
    for again in (b.activate, lambda: Job.restore(b.id)):
        with pytest.raises(CycleFound, match="b"):
            again()
    assert Job.where(dag="nightly").count() == 2
    other.delete()
    b.activate()
    assert stored_dag("nightly").dag.layers() == (("a",), ("b",), ("c",))


def test_several_that_are_brought_back_at_once_are_checked_together() -> None:
    a, b, c = made("a b c")
    first, second = wait_for(b, a), wait_for(c, b)
    first.delete()
    second.delete()
    third = wait_for(a, c)
    with pytest.raises(CycleFound), Eventic.unit_of_work():
        first.activate()
        second.activate()
    assert stored() == {(a.id, c.id)}
    third.delete()
    with Eventic.unit_of_work():
        first.activate()
        second.activate()
    assert stored() == {(b.id, a.id), (c.id, b.id)}


def test_a_job_moves_only_without_dependencies() -> None:
    a, b = made("a b")
    first = wait_for(b, a)
    for job in (a, b):
        for values in ({"dag": "nightly"}, {"client_id": "acme"}):
            with pytest.raises(InvalidDag, match="Delete them first"):
                job.update(**values)
    assert (a.version, b.version, a.dag, b.client_id) == (0, 0, None, None)
    with Eventic.unit_of_work():
        first.delete()
        a.dag = "nightly"
        b.dag = "nightly"
        wait_for(a, b)
    assert stored_dag("nightly").dag.order() == ("b", "a")


# -- units of work


def test_what_is_pending_counts() -> None:
    with pytest.raises(CycleFound, match="a -> b -> c -> a"), Eventic.unit_of_work():
        a, b, c = made("a b c", dag="nightly")
        wait_for(b, a)
        wait_for(c, b)
        wait_for(a, c)
    assert not stored()
    assert Job.where().count() == 0


def test_dependencies_and_their_jobs_are_made_together() -> None:
    with Eventic.unit_of_work():
        jobs = made(" ".join(f"j{number}" for number in range(50)), dag="nightly")
        for before, job in pairwise(jobs):
            wait_for(job, before)
    assert len(stored_dag("nightly").dag.layers()) == 50


def test_what_the_unit_of_work_deletes_does_not_count() -> None:
    a, b = made("a b")
    first = wait_for(b, a)
    with Eventic.unit_of_work():
        first.delete()
        wait_for(a, b)
    with pytest.raises(UnknownJob), Eventic.unit_of_work():
        c = Job(name="c")
        a.delete()
        wait_for(c, a)
    assert stored() == {(a.id, b.id)}


def test_what_is_written_and_deleted_again_does_not_count() -> None:
    a, b = made("a b")
    with Eventic.unit_of_work() as scope:
        first = wait_for(b, a)
        scope.flush()
        first.delete()
        scope.flush()
        second = wait_for(a, b)
        scope.flush()
        second.delete()
        first.activate()
    assert stored() == {(b.id, a.id)}


def test_an_inner_block_that_is_undone_leaves_the_outer_one_whole() -> None:
    a, b, c = made("a b c")
    with Eventic.unit_of_work() as scope:
        wait_for(b, a)
        with pytest.raises(CycleFound), Eventic.unit_of_work():
            wait_for(c, b)
            wait_for(a, c)
            scope.flush()
        with pytest.raises(ZeroDivisionError), Eventic.unit_of_work():
            wait_for(c, b)
            scope.flush()
            raise ZeroDivisionError
        wait_for(a, c)
    assert stored() == {(b.id, a.id), (a.id, c.id)}


@pytest.mark.parametrize("count", [2, 40])
def test_many_in_a_unit_of_work_cost_the_statements_of_one(count: int) -> None:
    jobs = made(" ".join(f"j{number}" for number in range(count)), dag="nightly")
    with Eventic.unit_of_work() as scope, tempfile.TemporaryFile("w+") as trace:
        for before, job in pairwise(jobs):
            wait_for(job, before)
        tx: Any = scope.transaction
        tx.driver.pgconn.trace(trace.fileno())
        scope.flush()
        tx.driver.pgconn.untrace()
        trace.seek(0)
        executed = re.findall(r"\tF\t\d+\tExecute", trace.read())
    assert len(executed) == 5  # whose the jobs are, the lock, the DAG's jobs and dependencies, and writing


def test_a_unit_of_work_with_repositories_writes_them_with_its_commit(url: str) -> None:
    with UnitOfWork(DatabaseConfig(url)) as work:
        a, b = made("a b", dag="nightly")
        wait_for(b, a)
        work.commit()
        with pytest.raises(CycleFound):
            wait_for(a, b)
            work.commit()
    assert stored() == {(b.id, a.id)}


def test_jobs_and_dependencies_of_subclasses_count() -> None:
    class HeavyJob(Job):
        memory_bytes: int = 0

    class SlowDependency(JobDependency):
        pass

    a, b = HeavyJob(name="a", dag="nightly", memory_bytes=5), Job(name="b", dag="nightly")
    with pytest.raises(DuplicateKey):
        Job(name="a", dag="nightly")
    SlowDependency(job_id=b.id, depends_on_id=a.id)
    with pytest.raises(CycleFound):
        wait_for(a, b)
    assert stored_dag("nightly").dag.order() == ("a", "b")


def test_undoing_a_run_brings_no_dependency_back_for_it_could_make_a_cycle() -> None:
    a, b, c, d, e, alone = made("a b c d e alone")
    first, second, kept = wait_for(b, a), wait_for(c, b), wait_for(e, d)
    run = Run(automation_id=uuid4())
    run.start()
    with running(workflow_id=str(run.id), step_id=1):
        for record in (first, second, alone, b, d):
            record.delete()
        third = wait_for(c, a)
    run.complete()
    report = run.undo()
    assert (report.restored, report.tombstoned, report.conflict_count) == (2, 1, 3)
    assert {conflict.record_id for conflict in report.conflicts} == {first.id, second.id, d.id}
    assert stored() == {(e.id, d.id)}
    assert {job.name for job in Job.where()} == {"a", "b", "c", "e", "alone"}
    kept.delete()
    with Eventic.unit_of_work():
        JobDependency.restore(first.id)
        JobDependency.restore(second.id)
    with pytest.raises(CycleFound), Eventic.unit_of_work():
        JobDependency.restore(third.id)
        wait_for(a, c)
    assert stored() == {(b.id, a.id), (c.id, b.id)}


def test_a_dependency_is_made_without_blocking_an_event_loop() -> None:
    a, b = made("a b")

    async def both() -> None:
        await JobDependency.create_async(**pair(b, a))
        with pytest.raises(CycleFound):
            await JobDependency.create_async(**pair(a, b))

    asyncio.run(both())
    assert stored() == {(b.id, a.id)}


def test_a_transaction_that_cannot_see_what_others_add_is_refused() -> None:
    a, b = made("a b")
    session = session_factory(process().store)()
    with session, pytest.raises(Invalid, match="repeatable read"):
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        with Eventic.using(session):
            wait_for(b, a)
    assert not stored()


# -- many at once


def test_many_are_loaded_at_once() -> None:
    ids = Job.create_many({"name": f"j{number}", "dag": "nightly"} for number in range(500))
    rows = [{"job_id": ids[n], "depends_on_id": ids[n - k]} for n in range(20, 500) for k in (1, 20)]
    assert len(JobDependency.create_many(iter(rows))) == len(rows) == len(stored())
    assert len(stored_dag("nightly").dag) == 500


@pytest.mark.parametrize("in_a_block", [False, True])
def test_a_load_with_a_cycle_stores_nothing(in_a_block: bool) -> None:
    a, b, c = made("a b c")
    wait_for(b, a)
    rows: list[Any] = [pair(c, b), JobDependency.draft(pair(a, c))]
    with pytest.raises(CycleFound, match="a -> b -> c -> a"):
        if in_a_block:
            with Eventic.unit_of_work():
                JobDependency.create_many(rows)
        else:
            JobDependency.create_many(rows)
    assert stored() == {(b.id, a.id)}
    JobDependency.create_many(rows[:1])
    with pytest.raises(CycleFound):
        wait_for(a, c)


def test_a_load_counts_what_its_unit_of_work_has_made() -> None:
    a, b = made("a b")
    with pytest.raises(CycleFound), Eventic.unit_of_work():
        wait_for(b, a)
        JobDependency.create_many([pair(a, b)])
    with pytest.raises(CycleFound), Eventic.unit_of_work():
        JobDependency.create_many([pair(a, b)])
        wait_for(b, a)
    with Eventic.unit_of_work():
        c = Job(name="c")
        JobDependency.create_many([pair(c, b)])
        wait_for(b, a)
    assert stored() == {(c.id, b.id), (b.id, a.id)}


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ({"job_id": "no id"}, InvalidRecord, "Row 2"),
        ("no row", InvalidRecord, "Row 2"),
        ({"argument": ""}, InvalidRecord, "Row 2"),
        ({"depends_on_id": uuid4()}, UnknownJob, "No job"),
        ({}, DuplicateKey, "held by another"),
    ],
)
def test_a_load_with_a_bad_row_stores_nothing(row: Any, error: type[EventicError], words: str) -> None:
    a, b = made("a b")
    bad = {**pair(b, a), **row} if isinstance(row, dict) else row
    with pytest.raises(error, match=words):
        JobDependency.create_many([pair(b, a), bad])
    assert not stored()


def test_random_dependencies_are_refused_exactly_when_a_pure_dag_refuses_them() -> None:
    random_one = random.Random(5)
    jobs = made("a b c d e f g h", dag="nightly")
    names = {job.id: job.name for job in jobs}
    edges: dict[str, dict[str, JobDependency]] = {job.name: {} for job in jobs}
    for _ in range(120):
        job, before = random_one.sample(jobs, 2)
        held = edges[job.name].pop(before.name, None)
        if held is not None:
            held.delete()
            continue
        wanted = {
            name: [*befores, before.name] if name == job.name else list(befores) for name, befores in edges.items()
        }
        try:
            Dag(wanted)
        except CycleFound:
            with pytest.raises(CycleFound):
                wait_for(job, before)
        else:
            edges[job.name][before.name] = wait_for(job, before)
    expected = {(name, before) for name, befores in edges.items() for before in befores}
    assert {(names[job], names[before]) for job, before in stored()} == expected


# -- two sessions


def at_once(*calls: Callable[[], object]) -> list[Exception | None]:
    """Do calls in threads that begin together; gives the error of each."""
    barrier = threading.Barrier(len(calls))

    def called(call: Callable[[], object]) -> Exception | None:
        barrier.wait()
        try:
            call()
        except EventicError as error:
            return error
        return None

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(called, calls))


@pytest.mark.parametrize("many", [False, True], ids=["one", "loaded"])
def test_of_two_sessions_that_each_add_half_of_a_cycle_one_fails(many: bool) -> None:
    for number in range(ROUNDS):
        a, b, c = made("a b c", dag=f"dag {number}", client_id=None if number % 2 else "acme")
        wait_for(b, a)

        def forth(job: Job = c, before: Job = b) -> object:
            return JobDependency.create_many([pair(job, before)]) if many else wait_for(job, before)

        def back(job: Job = a, before: Job = c) -> object:
            return wait_for(job, before)

        errors = at_once(forth, back)
        assert sorted(type(error).__name__ for error in errors) == ["CycleFound", "NoneType"]
        assert JobDependency.where(JobDependency.fields.job_id.in_([a.id, b.id, c.id])).count() == 2


def test_of_three_sessions_that_each_add_a_third_of_a_cycle_one_fails() -> None:
    for number in range(ROUNDS):
        a, b, c = made("a b c", dag=f"dag {number}")
        errors = at_once(
            lambda: wait_for(b, a),  # noqa: B023 - called before the next round
            lambda: wait_for(c, b),  # noqa: B023
            lambda: wait_for(a, c),  # noqa: B023
        )
        assert sorted(type(error).__name__ for error in errors) == ["CycleFound", "NoneType", "NoneType"]


@contextmanager
def held_open(write: Callable[[], object]) -> Iterator[None]:
    """Write in another session, whose transaction stays open in the block and is committed after it."""
    written, go_on = threading.Event(), threading.Event()

    def session() -> None:
        try:
            with Eventic.unit_of_work() as scope:
                write()
                scope.flush()
                written.set()
                go_on.wait()
        finally:
            written.set()

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(session)
        written.wait()
        try:
            yield
        finally:
            go_on.set()
        done.result()


def wait_until_blocked(url: str, other: Future[Any]) -> None:
    """Wait until a session waits for an advisory lock, or the other call has ended without."""
    with psycopg.connect(url, autocommit=True) as connection:
        waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
        while not connection.execute(waiting).fetchone() and not other.done():
            threading.Event().wait(0.01)


def test_a_session_waits_for_another_that_has_not_ended_and_then_sees_its_half(url: str) -> None:
    a, b = made("a b", dag="nightly")
    with ThreadPoolExecutor(1) as thread:
        with held_open(lambda: wait_for(b, a)):
            other = thread.submit(wait_for, a, b)
            wait_until_blocked(url, other)
            assert not other.done()
        with pytest.raises(CycleFound, match="a -> b -> a"):
            other.result()
    assert stored() == {(b.id, a.id)}


def test_a_job_that_is_brought_back_waits_for_who_adds_to_its_dag(url: str) -> None:
    a, b, c = made("a b c", dag="nightly")
    wait_for(b, a)
    wait_for(c, b)
    b.delete()
    with ThreadPoolExecutor(1) as thread:
        with held_open(lambda: wait_for(a, c)):
            other = thread.submit(b.activate)
            wait_until_blocked(url, other)
        with pytest.raises(CycleFound):
            other.result()


def test_a_job_that_another_session_has_moved_is_not_waited_for(url: str) -> None:
    a, b = made("a b", dag="nightly")
    moved = Job.hydrate(b.id)
    with ThreadPoolExecutor(1) as thread:
        with held_open(lambda: moved.update(dag="hourly")):
            other = thread.submit(wait_for, b, a)
            wait_until_blocked(url, other)
            assert not other.done()
        with pytest.raises(UnknownJob, match=f"{b.id} in DAG 'nightly'"):
            other.result()
    assert not stored()


def test_a_job_does_not_move_while_another_session_makes_it_wait(url: str) -> None:
    a, b = made("a b", dag="nightly")
    with ThreadPoolExecutor(1) as thread:
        with held_open(lambda: wait_for(b, a)):
            other = thread.submit(Job.hydrate(b.id).update, dag="hourly")
            wait_until_blocked(url, other)
            assert not other.done()
        with pytest.raises(InvalidDag, match="Delete them first"):
            other.result()
    assert len(stored_dag("nightly").dag) == 2


def test_sessions_that_write_in_different_dags_do_not_wait_for_each_other() -> None:
    a, b = made("a b", dag="nightly")
    c, d = made("a b", dag="nightly", client_id="acme")
    with held_open(lambda: wait_for(b, a)):
        wait_for(d, c)
        assert stored() == {(d.id, c.id)}
    assert len(stored()) == 2


# -- where it cannot be checked


def test_a_workflow_writes_dependencies_in_a_transaction() -> None:
    Eventic.launch(queues=[])
    a, b = made("a b")

    @Eventic.transaction(name="jobs_add_dependency")
    def add(job: str, before: str) -> None:
        assert current_scope() is not None
        JobDependency(job_id=UUID(job), depends_on_id=UUID(before))

    @Eventic.workflow(name="jobs_in_its_body")
    def in_its_body() -> None:
        wait_for(b, a)

    @Eventic.workflow(name="jobs_in_a_transaction")
    def in_a_transaction() -> str:
        add(str(b.id), str(a.id))
        try:
            add(str(a.id), str(b.id))
        except CycleFound as error:
            return " ".join(error.path)
        return "stored"

    with pytest.raises(ScopeError, match=r"@Eventic\.transaction"):
        in_its_body()
    assert in_a_transaction() == "a b a"


# -- reading


def test_a_stored_dag_has_its_jobs_by_name_and_what_waits_for_what() -> None:
    a, b, c = made("extract load report", dag="nightly", client_id="acme")
    made("extract load", dag="nightly")
    made("extract", dag="hourly", client_id="acme")
    first, second = wait_for(b, a, argument="rows"), wait_for(c, b)
    found = stored_dag("nightly", "acme")
    assert (found.name, found.client_id) == ("nightly", "acme")
    assert found.jobs == {"extract": a, "load": b, "report": c}
    assert found.dag.layers() == (("extract",), ("load",), ("report",))
    assert found.dependencies == (first, second)
    assert stored_dag("nightly").dag.layers() == (("extract", "load"),)


def test_a_stored_dag_is_read_with_what_the_unit_of_work_has_changed() -> None:
    a, b = made("a b", dag="nightly")
    with Eventic.unit_of_work():
        wait_for(b, a)
        c = Job(name="c", dag="nightly")
        wait_for(c, b)
        found = stored_dag("nightly")
        assert found.dag.order() == ("a", "b", "c")


def test_a_dag_without_jobs_is_not_there() -> None:
    made("a", dag="nightly", client_id="acme")
    for names in (("nightly",), ("hourly", "acme"), (None,)):
        with pytest.raises(UnknownJob, match="No job is stored with client_id="):
            stored_dag(*names)
