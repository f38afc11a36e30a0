"""Jobs and their runs as records: what fits, whose names are taken, and the words of the earlier library."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import (
    DuplicateKey,
    Eventic,
    EventicError,
    InvalidRecord,
    InvalidSchedule,
    InvalidStateError,
    UnknownRule,
)
from eventic_core.jobs import DEFAULT_PRIORITY, ExecutionStatus, Job, JobRun, JobStatus, TriggerRule

S = ExecutionStatus
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = datetime(2026, 3, 1, 13, tzinfo=UTC)


@pytest.fixture(autouse=True)
def url(eventic: str) -> str:
    return eventic


def path_of(run: JobRun) -> list[str]:
    return [str(past.status) for past in reversed(run.history())]


# -- jobs


def test_a_job_says_only_what_differs() -> None:
    job = Job.hydrate(Job(name=" load ", description="Loads.").id)
    assert (job.name, job.description) == ("load", "Loads.")
    assert (job.client_id, job.dag, job.schedule, job.zone, job.function, job.map_over) == (None,) * 6
    assert (job.rule, job.retries, job.priority) == (TriggerRule.ALL_SUCCESS, 0, DEFAULT_PRIORITY)
    assert (job.timeout_seconds, job.parameters) == (None, {})
    assert job.is_active
    assert (job.created_at, job.updated_by) == (job.stamp.recorded_at, None)


def test_a_job_is_read_as_it_was_written() -> None:
    values: dict[str, Any] = {
        "name": "load",
        "client_id": "acme",
        "schedule": "30 2 * * mon-fri",
        "zone": "Europe/Berlin",
        "paused": True,
        "rule": "none_failed",
        "retries": 3,
        "priority": 0,
        "timeout_seconds": 1.5,
        "function": "load_all",
        "map_over": "airport",
        "parameters": {"day": "today", "limit": [1, 2]},
    }
    job = Job.hydrate(Job(**values).id)
    assert {name: getattr(job, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"name": " "}, InvalidRecord, "name"),
        ({"name": "n" * 256}, InvalidRecord, "name"),
        ({"priority": -1}, InvalidRecord, "priority"),
        ({"retries": -1}, InvalidRecord, "retries"),
        ({"timeout_seconds": 0}, InvalidRecord, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, InvalidRecord, "timeout_seconds"),
        ({"client_id": ""}, InvalidRecord, "client_id"),
        ({"parameters": {"at": object()}}, InvalidRecord, "JSON"),
        ({"rule": "sometimes"}, UnknownRule, "'sometimes'"),
        ({"rule": 3}, UnknownRule, "3"),
        ({"schedule": "99 * * * *"}, InvalidSchedule, "99"),
        ({"schedule": "0 0 30 2 *"}, InvalidSchedule, "30 2"),
        ({"schedule": "now and then"}, InvalidSchedule, "now and then"),
        ({"schedule": "0 2 * * *", "zone": "Mars/Olympus"}, InvalidSchedule, "Mars/Olympus"),
        ({"schedule": "every 15 minutes", "zone": "Europe/Berlin"}, InvalidSchedule, "every 15 minutes"),
        ({"zone": "Europe/Berlin"}, InvalidSchedule, "no schedule"),
        ({"dag": "nightly", "schedule": "0 2 * * *"}, InvalidSchedule, "schedule the DAG"),
        ({"colour": "red"}, InvalidRecord, "colour"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_stored(
    values: dict[str, Any], error: type[EventicError], words: str
) -> None:
    with pytest.raises(error, match=words):
        Job(**{"name": "load", **values})
    with pytest.raises(error, match=words), Eventic.unit_of_work():
        Job(name="other")
        Job(**{"name": "load", **values})
    with pytest.raises(error, match=words):
        Job.create_many([{"name": "other"}, {"name": "load", **values}])
    assert Job.where().count() == 0


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"priority": -1}, InvalidRecord),
        ({"rule": "sometimes"}, UnknownRule),
        ({"schedule": "99 * * * *"}, InvalidSchedule),
        ({"schedule": None}, InvalidSchedule),
        ({"zone": "Mars/Olympus"}, InvalidSchedule),
        ({"dag": "nightly"}, InvalidSchedule),
        ({"name": "taken"}, DuplicateKey),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(values: dict[str, Any], error: type[EventicError]) -> None:
    Job(name="taken")
    job = Job(name="load", schedule="0 2 * * *", zone="Europe/Berlin")
    with pytest.raises(error):
        job.update(**values)
    with pytest.raises(error), job.edit():
        job.retries = 9
        job.update(**values)
    assert (job.version, job.retries, job.name, job.priority) == (0, 0, "load", DEFAULT_PRIORITY)
    assert (job.rule, job.schedule, job.zone) == (TriggerRule.ALL_SUCCESS, "0 2 * * *", "Europe/Berlin")
    assert Job.hydrate(job.id).version == 0


def test_a_schedule_and_its_zone_change_together() -> None:
    job = Job(name="load", schedule="0 2 * * *", zone="Europe/Berlin")
    job.update(schedule="every 15 minutes", zone=None)
    job.update(schedule=None)
    assert job.version == 2


@pytest.mark.parametrize(
    "place", [{}, {"client_id": "acme"}, {"dag": "nightly"}, {"client_id": "acme", "dag": "nightly"}]
)
def test_a_name_is_taken_once_in_each_dag_of_each_tenant(place: dict[str, str]) -> None:
    job = Job(name="load", **place)
    for other in ({"client_id": "other"}, {"dag": "other"}, {"name": "other"}):
        Job(**{"name": "load", **place, **other})
    stored = Job.where().count()
    with pytest.raises(DuplicateKey, match="load"):
        Job(name="load", **place)
    with pytest.raises(DuplicateKey):
        Job.create_many([{"name": "load", **place}])
    assert Job.where().count() == stored
    job.deactivate()
    again = Job(name="load", **place)
    with pytest.raises(DuplicateKey):
        job.activate()
    again.name = "renamed"
    job.activate()
    assert Job.where(name="load", **place).count() >= 1
    with pytest.raises(DuplicateKey):
        again.name = "load"


# -- runs of jobs


def test_a_run_made_as_started_has_begun_and_is_two_versions() -> None:
    job = Job(name="load")
    run = JobRun(job_id=job.id, status="started")
    assert (run.status, run.attempt_count) == (S.PROCESSING, 1)
    assert run.started_at is not None
    assert run.finished_at is None
    assert path_of(run) == ["PENDING", "PROCESSING"]


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("pending", ["PENDING"]),
        (JobStatus.PENDING, ["PENDING"]),
        ("running", ["PENDING", "PROCESSING"]),
        ("RUNNING", ["PENDING", "PROCESSING"]),
        (JobStatus.RUNNING, ["PENDING", "PROCESSING"]),
        (S.PROCESSING, ["PENDING", "PROCESSING"]),
        ("completed", ["PENDING", "PROCESSING", "COMPLETED"]),
        ("failed", ["PENDING", "PROCESSING", "FAILED"]),
        (JobStatus.FAILED, ["PENDING", "PROCESSING", "FAILED"]),
    ],
)
def test_a_run_comes_to_the_status_it_is_made_with_move_by_move(word: str, path: list[str]) -> None:
    run = JobRun(job_id=uuid4(), status=word)
    assert path_of(run) == path
    in_a_loop = asyncio.run(JobRun.create_async(job_id=uuid4(), status=word))
    assert path_of(in_a_loop) == path


def test_a_run_keeps_the_times_it_is_made_with() -> None:
    run = JobRun(job_id=uuid4(), status="completed", started_at=NOON, finished_at=ONE)
    stored = JobRun.hydrate(run.id)
    assert (stored.started_at, stored.finished_at, stored.duration) == (NOON, ONE, 3600)
    assert JobRun(status="failed", started_at=NOON, attempt_count=4).attempt_count == 4


def test_a_run_is_assigned_the_words_of_the_earlier_library() -> None:
    run = JobRun(job_id=uuid4())
    assert run.status == JobStatus.PENDING
    run.status = "started"  # type: ignore[assignment]
    assert run.status is S.PROCESSING
    assert run.status == JobStatus.RUNNING
    run.update(status="completed", finished_at=ONE)
    assert run.status == JobStatus.COMPLETED
    assert path_of(run) == ["PENDING", "PROCESSING", "COMPLETED"]


def test_a_new_run_of_a_failed_unit_of_work_is_not_there() -> None:
    with pytest.raises(InvalidStateError), Eventic.unit_of_work():
        JobRun(job_id=uuid4(), status="started")
        JobRun(job_id=uuid4(), status="completed").status = "started"  # type: ignore[assignment]
    assert JobRun.where().count() == 0


@pytest.mark.parametrize("status", ["RETRYING", "CANCELLED", S.SKIPPED, JobStatus.COMPLETED])
def test_a_run_is_not_made_as_what_it_cannot_have_come_to(status: str) -> None:
    values = {"job_id": uuid4(), "status": status}
    with pytest.raises(InvalidStateError):
        JobRun.create_many([values])
    if status != "COMPLETED":
        with pytest.raises(InvalidStateError):
            JobRun(**values)
    assert JobRun.where().count() == 0


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="status"):
        JobRun(job_id=uuid4(), status="sleeping")
    run = JobRun(job_id=uuid4())
    with pytest.raises(InvalidStateError, match="sleeping"):
        run.status = "sleeping"  # type: ignore[assignment]
    assert (run.status, run.version) == (S.PENDING, 0)


@pytest.mark.parametrize(
    ("made", "status"),
    [("pending", "completed"), ("pending", "failed"), ("completed", "started"), ("completed", "pending")],
)
def test_a_move_that_the_table_does_not_have_is_refused(made: str, status: str) -> None:
    run = JobRun(job_id=uuid4(), status=made)
    version = run.version
    with pytest.raises(InvalidStateError):
        run.update(status=status)
    assert JobRun.hydrate(run.id).version == run.version == version


def test_a_run_is_tried_again_while_attempts_are_left() -> None:
    run = JobRun(job_id=uuid4(), max_attempts=2)
    run.start()
    run.fail("no", error_type="ValueError")
    assert (run.status, run.finished_at, run.error_message) == (S.RETRYING, None, "no")
    run.start()
    run.fail("no again")
    assert (run.status, run.attempt_count) == (S.FAILED, 2)
    with pytest.raises(InvalidStateError, match="after 2"):
        run.start()
    run.reopen()
    assert (run.status, run.finished_at) == (S.PENDING, None)


def test_a_run_ends_once() -> None:
    done = JobRun(job="load", number=1, status="started")
    done.complete({"rows": 3})
    assert JobRun.hydrate(done.id).result_payload == {"rows": 3}
    skipped = JobRun(job="report")
    skipped.skip("load failed", after_failure=True)
    assert (skipped.status, skipped.because, skipped.after_failure) == (S.SKIPPED, "load failed", True)
    cancelled = JobRun(job="report", status="started")
    cancelled.cancel("not wanted")
    assert (cancelled.status, cancelled.error_message) == (S.CANCELLED, "not wanted")
    for run in (done, skipped, cancelled):
        assert run.finished_at is not None
        for move in (run.start, run.complete, run.skip, run.cancel):
            with pytest.raises(InvalidStateError):
                move()


def test_a_branch_skips_itself_once_it_has_begun() -> None:
    run = JobRun(job="load", status="started")
    run.skip("nothing to do")
    assert (run.status, run.after_failure) == (S.SKIPPED, False)


def test_the_records_of_jobs_load_no_database_driver() -> None:
    code = "import sys, eventic_core.jobs as jobs; jobs.Job, jobs.JobDependency, jobs.JobRun, jobs.stored_dag"
    check = f"{code}; print(sorted({{'dbos', 'psycopg', 'rich', 'sqlalchemy'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
