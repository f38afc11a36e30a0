"""Schedules of what is stored: of a DAG's records as they are at each due time, and of single jobs by what they say.

Time is not faked: what is due is due every second, or every day and some seconds ago.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from conftest import execute, until

from eventic_core import (
    DuplicateRegistration,
    Eventic,
    Invalid,
    InvalidDag,
    InvalidRecord,
    InvalidSchedule,
    NotRegistered,
    RecordDeleted,
    UnknownJob,
)
from eventic_core.jobs import (
    DagRun,
    ExecutionStatus,
    Job,
    JobDependency,
    Overlap,
    Schedule,
    StoredDag,
    dag,
    job,
    registry,
    stored_dag,
)
from eventic_core.jobs.job_schedule import fired_since
from eventic_core.runtime.queues import Handle

S = ExecutionStatus
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
TRIES: list[int] = []


@pytest.fixture(autouse=True)
def afresh(workers: str) -> Iterator[str]:
    yield workers
    for schedule in Schedule.where().all():
        schedule.delete()
    for one in Job.where().all():
        one.delete()


@pytest.fixture
def name() -> str:
    """A name that no other test has, for they share a database."""
    return f"sts-{uuid4().hex[:8]}"


@job(name="sts echo")
def echo(due_at: datetime, text: str = "-") -> str:
    return f"{text} {due_at.isoformat()}"


@job(name="sts shout")
def shout(words: str) -> str:
    return words.upper()


@job(name="sts flaky")
def flaky() -> int:
    TRIES.append(1)
    raise ConnectionError("away")


@job(name="sts each", map="one")
def each(one: int) -> int:
    return one


dag("sts: of this process", echo)  # whose workers look at schedules then


def work_of(of: Schedule | Job) -> str | None:
    """How the work of the last version of a schedule, or of a job, is."""
    return Handle[None](f"schedule-{of.id}-{of.version}").status()


def looked_at(of: Schedule | Job) -> None:
    """Wait until a worker has come to the last version of a schedule, or of a job."""
    until(lambda: work_of(of) in ("DELAYED", "SUCCESS"))


def set_back(url: str, of: Schedule | Job, by: timedelta) -> None:
    """Make what is scheduled something that no worker has come to for some time, and have one look at it."""
    looked_at(of)
    execute(
        url,
        f"update eventic.schedules set decided_until = clock_timestamp() - interval '{by.total_seconds()} seconds' "
        f"where schedule_id = '{of.id}'",
    )
    of.refresh()
    of.touch()
    looked_at(of)


def ago(by: timedelta) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - by


def pair(name: str, client_id: str | None = None) -> StoredDag:
    """Store a DAG of two jobs, the one of which shouts what the other says."""
    with Eventic.unit_of_work():
        said = Job(name="said", function="sts echo", dag=name, client_id=client_id, parameters={"text": "first"})
        loud = Job(name="loud", function="sts shout", dag=name, client_id=client_id)
        JobDependency(job_id=loud.id, depends_on_id=said.id, argument="words")
    return stored_dag(name, client_id)


def daily(of: StoredDag, **options: Any) -> Schedule:
    """A schedule that is due every day, and was some seconds ago, before it was made."""
    return of.schedule("every day", **{"anchor": ago(5 * SECOND), **options})


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


def runs_of(one: Job) -> list[DagRun]:
    """The runs of a job that its schedule started, the first one first."""
    return one.as_schedule().runs(limit=None)[::-1]


# -- stored DAGs


def test_a_stored_dag_runs_once_for_each_due_time_with_what_its_records_say_then(name: str) -> None:
    stored = pair(name, "acme")
    schedule = stored.schedule("every second", overlap="allow")
    assert (schedule.dag, schedule.client_id, schedule.stored, schedule.name) == (name, "acme", True, name)
    until(lambda: len(schedule.runs()) >= 2)
    stored.jobs["said"].update(parameters={"text": "second"})
    Job(name="more", function="sts echo", dag=name, client_id="acme")
    changed = len(schedule.runs())
    until(lambda: len(schedule.runs()) >= changed + 2)
    schedule.pause()
    runs = [ended(run) for run in schedule.runs(limit=None)[::-1]]
    due = [run.due_at for run in runs]
    assert due == [runs[0].due_at + number * SECOND for number in range(len(runs)) if runs[0].due_at]
    first, last = runs[0], runs[-1]
    assert first.result("loud") == f"FIRST {due[0]:%Y-%m-%dT%H:%M:%S+00:00}".upper()
    assert list(first.states()) == ["said", "loud"]
    assert last.result("loud").startswith("SECOND ")
    assert list(last.states()) == ["said", "loud", "more"]
    assert {(run.dag, run.client_id, run.schedule_id) for run in runs} == {(name, "acme", schedule.id)}
    assert last.job_run("said").job_id == stored.jobs["said"].id


def test_a_schedule_of_a_stored_dag_has_the_options_of_a_declared_ones(name: str) -> None:
    stored = pair(name)
    options: dict[str, Any] = {"name": f"{name} nightly", "zone": "Europe/Berlin", "starts_at": ago(DAY)}
    options |= {"parameters": {"text": "given"}, "catch_up": DAY, "overlap": "queue", "ends_at": ago(-DAY)}
    first = stored.schedule("0 3 * * *", **options)
    first.pause()
    again = stored_dag(name).schedule("0  3 * * *", **options)
    assert (again.id, again.version, again.paused) == (first.id, 1, True)
    assert (first.zone, first.catch_up_seconds, first.overlap) == ("Europe/Berlin", 86400, Overlap.QUEUE)
    run = ended(first.run_now())
    assert run.result("loud").startswith("GIVEN ")
    in_a_loop = asyncio.run(stored.schedule_async("@daily", name=f"{name} hourly"))
    assert in_a_loop.stored


def test_a_declared_dag_and_the_stored_one_of_its_name_have_schedules_of_their_own(workers: str, name: str) -> None:
    declared = dag(name, echo)
    stored = declared.stored()
    stored.jobs["sts echo"].update(parameters={"text": "stored"})
    of_code, of_records = declared.schedule("@daily"), daily(stored_dag(name), name=f"{name} stored")
    assert (of_code.stored, of_records.stored) == (False, True)
    with pytest.raises(DuplicateRegistration, match="stored=False, not True"):
        stored.schedule("@daily")
    assert ended(of_code.run_now()).result("sts echo").startswith("- ")
    set_back(workers, of_records, DAY)
    (run,) = of_records.runs()
    assert ended(run).result("sts echo").startswith("stored ")


def test_a_record_that_gives_due_at_itself_is_believed(name: str) -> None:
    moment = "2020-01-01T00:00:00Z"
    Job(name="sts echo", dag=name, parameters={"due_at": moment})
    run = ended(stored_dag(name).schedule("@daily").run_now())
    assert (run.parameters, run.result("sts echo")) == ({}, "- 2020-01-01T00:00:00+00:00")


def test_a_run_that_the_records_do_not_allow_is_noted_and_the_next_is_another_matter(workers: str, name: str) -> None:
    stored = pair(name)
    schedule = daily(stored, parameters={"text": "given"})
    looked_at(schedule)
    stored.jobs["loud"].update(function="sts echo")  # which has no parameter `words`
    set_back(workers, schedule, DAY)
    progress = schedule.progress()
    assert progress is not None
    assert "has no parameter 'words'" in str(progress.last_error)
    assert schedule.runs() == []
    stored.jobs["loud"].update(function="sts shout")
    set_back(workers, schedule, DAY)
    assert len(schedule.runs()) == 1
    again = schedule.progress()
    assert again is not None
    assert again.last_error is None


def test_what_no_worker_has_declared_waits_for_one_that_has(workers: str, name: str) -> None:
    schedule = daily(pair(name))
    looked_at(schedule)
    known = registry._jobs.pop("sts shout")
    try:
        execute(
            workers,
            f"update eventic.schedules set decided_until = clock_timestamp() - interval '1 day' "
            f"where schedule_id = '{schedule.id}'",
        )
        schedule.touch()
        until(lambda: work_of(schedule) == "DELAYED")
        assert schedule.runs() == []
    finally:
        registry._jobs["sts shout"] = known
    until(schedule.runs)


def test_a_stored_dag_is_backfilled_with_its_records_of_now(name: str) -> None:
    schedule = daily(pair(name, "acme"), anchor=ago(DAY / 2))
    backfill = schedule.backfill(ago(3 * DAY), ago(SECOND)).wait(timeout_seconds=100)
    assert (backfill.status, backfill.stored, backfill.client_id) == (S.COMPLETED, True, "acme")
    assert [run.status for run in backfill.runs()] == [S.COMPLETED] * 3
    assert all(run.result("loud").startswith("FIRST ") for run in backfill.runs())


def test_a_backfill_of_what_is_stored_no_more_fails(name: str) -> None:
    stored = pair(name)
    schedule = daily(stored, anchor=ago(DAY / 2))
    for one in stored.jobs.values():
        one.delete()
    backfill = schedule.backfill(ago(3 * DAY), ago(SECOND)).wait(timeout_seconds=100)
    assert backfill.status == S.FAILED
    assert "No job is stored" in str(backfill.error_summary)


@pytest.mark.parametrize(
    ("schedule", "options", "error", "message"),
    [
        ("61 3 * * *", {}, InvalidSchedule, "the minute '61' is not valid"),
        ("@daily", {"zone": "Mars/Base"}, InvalidSchedule, "Mars/Base"),
        ("@daily", {"overlap": "maybe"}, InvalidRecord, "overlap"),
        ("@daily", {"parameters": {"size": 1}}, Invalid, "takes no parameter 'size'"),
        ("@daily", {"parameters": {"words": "x"}}, Invalid, "takes no parameter 'words'"),
    ],
)
def test_bad_schedules_of_stored_dags_are_refused_and_nothing_is_stored(
    name: str, schedule: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    stored = pair(name)
    with pytest.raises(error, match=message):
        stored.schedule(schedule, **options)
    assert Schedule.where().count() == 0


def test_a_schedule_is_checked_by_what_is_stored_whichever_way_it_is_changed(name: str) -> None:
    with Eventic.unit_of_work():
        stored = pair(name)  # in the transaction of the schedule
        schedule = stored.schedule("@daily", parameters={"text": "a"})
    for values, error in (
        ({"parameters": {"size": 1}}, Invalid),
        ({"dag": "nobody's"}, UnknownJob),
        ({"client_id": "acme"}, UnknownJob),
        ({"stored": False}, NotRegistered),
    ):
        with pytest.raises(error):
            schedule.update(**values)
    with pytest.raises(Invalid), schedule.edit():
        schedule.parameters["size"] = 1
    assert Schedule.hydrate(schedule.id).version == 0
    with pytest.raises(InvalidDag, match="part of no DAG"):
        Job(name="sts echo")
        stored_dag(None).schedule("@daily")


# -- single jobs


def alone(name: str, schedule: str | None = "every second", **values: Any) -> Job:
    return Job(**{"name": name, "function": "sts echo", "schedule": schedule, **values})


def test_a_job_with_a_schedule_runs_once_for_each_due_time_as_a_dag_of_one(name: str) -> None:
    one = alone(name, client_id="acme", parameters={"text": "hi"}, priority=2)
    until(lambda: len(runs_of(one)) >= 3)
    one.update(paused=True)
    runs = [ended(run) for run in runs_of(one)]
    due = [run.due_at for run in runs if run.due_at is not None]
    assert len(set(due)) == len(due) == len(runs)
    assert min(due) > one.history()[-1].stamp.recorded_at
    for run in runs:
        assert run.due_at is not None
        assert run.result(name) == f"hi {run.due_at.isoformat()}"
        assert (run.dag, run.client_id, run.schedule_id, list(run.states())) == (name, "acme", one.id, [name])
        assert run.job_run(name).job_id == one.id
        assert run.history()[-1].stamp.reason == f"schedule {name}"


def test_a_job_stored_by_the_many_is_fired_as_one_stored_alone(name: str) -> None:
    rows = [{"name": f"{name} {n}", "function": "sts echo", "schedule": "every second"} for n in range(2)]
    ids = Job.create_many([*rows, {"name": f"{name} without"}])
    jobs = [Job.hydrate(one) for one in ids]
    until(lambda: all(runs_of(one) for one in jobs[:2]))
    with Eventic.unit_of_work():
        (inside,) = Job.create_many([{**rows[0], "name": f"{name} inside"}])
    until(lambda: runs_of(Job.hydrate(inside)))


def test_rows_that_are_no_jobs_are_refused_by_their_number(name: str) -> None:
    rows: Any = [{"name": name, "schedule": "every second"}, 7]
    with pytest.raises(InvalidRecord, match="Row 2"):
        Job.create_many(rows)
    assert Job.where(name=name).count() == 0


def test_a_job_that_is_not_stored_is_not_fired(name: str) -> None:
    with pytest.raises(KeyError), Eventic.unit_of_work():
        one = alone(name)
        many = Job.create_many([{"name": f"{name} many", "schedule": "every second"}])
        raise KeyError
    for job_id in (one.id, *many):
        with pytest.raises(Exception, match=str(job_id)):
            Handle[None](f"schedule-{job_id}-0").status()


@pytest.mark.parametrize(
    "stop",
    [
        lambda one: one.delete(),
        lambda one: one.deactivate(),
        lambda one: one.update(schedule=None),
        lambda one: one.update(schedule=None, dag=f"{one.name} dag"),
        lambda one: one.update(paused=True),
        lambda one: one.as_schedule().pause(),
        lambda one: one.update(schedule="0 0 1 1 *"),
    ],
    ids=["deleted", "deactivated", "without", "moved", "paused", "paused as a schedule", "otherwise"],
)
def test_no_run_is_started_once_a_job_is_not_to_be_fired(name: str, stop: Callable[[Job], object]) -> None:
    one = alone(name)
    until(lambda: runs_of(one))
    schedule = one.as_schedule()
    one.refresh()
    stop(one)
    known = len(schedule.runs(limit=None))
    other = alone(f"{name} other")
    until(lambda: len(runs_of(other)) >= 3)
    assert len(schedule.runs(limit=None)) == known


@pytest.mark.parametrize("how", ["restored", "resumed", "put back"])
def test_what_was_due_while_a_job_was_not_to_be_fired_is_left_out(workers: str, name: str, how: str) -> None:
    start, stop = {
        "restored": (lambda: Job.restore(one.id), lambda: one.delete()),
        "resumed": (lambda: one.as_schedule().resume(), lambda: one.as_schedule().pause()),
        "put back": (lambda: one.update(schedule="every second"), lambda: one.update(schedule=None)),
    }[how]
    one = alone(name)
    until(lambda: runs_of(one))
    schedule = one.as_schedule()
    stop()
    execute(
        workers, f"update eventic.schedules set decided_until = now() - interval '9 s' where schedule_id = '{one.id}'"
    )
    known = {ended(run).due_at for run in schedule.runs(limit=None)}  # so that none stands in the way
    start()
    one = Job.hydrate(one.id)
    until(lambda: {run.due_at for run in schedule.runs(limit=None)} > known)
    since = one.stamp.recorded_at
    assert fired_since(one) == since
    assert all(run.due_at > since for run in schedule.runs(limit=None) if run.due_at and run.due_at not in known)


def test_a_change_that_leaves_the_schedule_as_it_is_interrupts_nothing(name: str) -> None:
    one = alone(name, "@daily")
    one.update(parameters={"text": "b"})
    one.touch()
    assert fired_since(one) == one.history()[-1].stamp.recorded_at
    one.update(schedule="@hourly")
    assert fired_since(one) == one.stamp.recorded_at


def test_each_run_of_a_job_is_of_the_record_as_it_is_then(name: str) -> None:
    one = alone(name, parameters={"text": "a"})
    until(lambda: runs_of(one))
    one.update(parameters={"text": "b"}, name=f"{name} renamed")
    until(lambda: runs_of(one)[-1].dag == f"{name} renamed")
    last = ended(runs_of(one)[-1])
    assert last.result(f"{name} renamed").startswith("b ")


def test_a_job_whose_run_cannot_be_started_says_why(workers: str, name: str) -> None:
    one = alone(name, parameters={"size": 1})
    until(lambda: (known := one.as_schedule().progress()) and known.last_error)
    known = one.as_schedule().progress()
    assert known is not None
    assert "has no parameter 'size'" in str(known.last_error)
    one.update(parameters={})
    until(lambda: runs_of(one))


def test_a_job_runs_at_once_with_what_its_record_says(name: str) -> None:
    TRIES.clear()
    one = alone(name, None, client_id="acme", parameters={"due_at": "2020-01-01T00:00:00Z"})
    run = ended(one.run(text="now", correlation_id="c1"))
    assert run.result(name) == "now 2020-01-01T00:00:00+00:00"
    assert (run.dag, run.client_id, run.schedule_id, run.correlation_id) == (name, "acme", None, "c1")
    assert run.job_run(name).job_id == one.id
    again = alone(f"{name} again", None, function="sts flaky", retries=2)
    failed = ended(asyncio.run(again.run_async()))
    assert (failed.status, failed.job_run(again.name).attempt_count, len(TRIES)) == (S.FAILED, 3, 3)


def test_a_job_that_cannot_run_by_itself_is_refused(name: str) -> None:
    part = Job(name="sts echo", dag=name)
    deleted = alone(f"{name} deleted", None)
    deleted.delete()
    for one, error, message in (
        (part, InvalidDag, f"part of DAG '{name}'"),
        (deleted, RecordDeleted, "deleted"),
        (Job.draft({"name": "sts echo"}), Invalid, "draft"),
        (alone(f"{name} unknown", None, function="sts nobody's"), NotRegistered, "sts nobody's"),
        (alone(f"{name} short", None), Invalid, "'due_at'"),
        (alone(f"{name} mapped", None, function="sts each"), InvalidDag, "is mapped"),
    ):
        with pytest.raises(error, match=message):
            one.run()
    assert DagRun.where(dag=name).count() == 0


def test_the_schedule_of_a_job_is_asked_and_steered_like_another_and_not_stored(name: str) -> None:
    one = alone(name, "0 3 * * *", zone="Europe/Berlin", client_id="acme")
    schedule = one.as_schedule()
    assert {moment.hour for moment in schedule.next_due(400)} == {1, 2}
    run = ended(schedule.run_now())
    assert (run.schedule_id, run.due_at) == (one.id, None)
    backfill = schedule.backfill(ago(3 * DAY), ago(SECOND), at_a_time=2).wait(timeout_seconds=100)
    assert [run.status for run in backfill.runs()] == [S.COMPLETED] * 3
    assert {run.dag for run in backfill.runs()} == {name}
    assert [found.id for found in schedule.backfills()] == [backfill.id]
    schedule.pause()
    assert (schedule.paused, Job.hydrate(one.id).paused) == (True, True)
    with pytest.raises(InvalidSchedule, match="backfill"):
        schedule.resume(catch_up=True)
    schedule.resume()
    assert (schedule.paused, Job.hydrate(one.id).paused) == (False, False)
    with pytest.raises(InvalidSchedule, match="what its record says"):
        schedule.save()
    assert Schedule.where().count() == 0
    for other in (Job(name=f"{name} none"), Job(name=f"{name} part", dag=name)):
        with pytest.raises(InvalidSchedule, match="no schedule of its own"):
            other.as_schedule()


def test_writers_and_workers_at_once_leave_one_run_for_each_due_time(name: str) -> None:
    one = alone(name)
    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(0.05):
            with Eventic.unit_of_work():
                Job.hydrate(one.id).touch()

    writer = threading.Thread(target=touch)
    writer.start()
    try:
        until(lambda: len(runs_of(one)) >= 4)
    finally:
        stop.set()
        writer.join()
    Job.hydrate(one.id).update(paused=True)
    due = [run.due_at for run in runs_of(one)]
    assert len(set(due)) == len(due)
    assert all(ended(run).status == S.COMPLETED for run in runs_of(one))
