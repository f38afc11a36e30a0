"""What a worker's death costs the job or item it was doing, and what a process looks at that has declared jobs only."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest

from eventic_core.jobs.versions import JobRunVersions
from eventic_core.records.stamp import Origin


def begun(versions: JobRunVersions) -> JobRunVersions:
    versions.begin()
    return versions


def fresh(max_attempts: int) -> JobRunVersions:
    origin = Origin(actor=None, correlation_id=None, workflow_id="w")
    return begun(JobRunVersions.at(uuid4(), 0, "job", None, max_attempts=max_attempts, origin=origin))


@pytest.mark.usefixtures("eventic")
def test_a_death_that_may_be_chance_costs_no_attempt_however_often() -> None:
    versions = fresh(1)
    for _ in range(5):
        assert versions.survived(is_chance=True)
        assert (versions.status, versions.attempts) == ("RETRYING", 0)
        begun(versions)
    assert versions.attempts == 1


@pytest.mark.usefixtures("eventic")
@pytest.mark.parametrize(("max_attempts", "deaths"), [(1, 2), (2, 2), (4, 4)])
def test_a_job_is_given_up_after_as_many_deaths_as_it_has_attempts_and_two_at_least(
    max_attempts: int, deaths: int
) -> None:
    versions = fresh(max_attempts)
    for _ in range(deaths - 1):
        assert versions.survived(is_chance=False)
        begun(versions)
    assert not versions.survived(is_chance=False)
    assert (versions.status, versions.document["error_type"], versions.attempts) == ("FAILED", "WorkerDied", deaths)


def test_a_process_that_has_declared_jobs_but_no_dag_does_runs_and_schedules_of_stored_ones() -> None:
    script = (
        "from eventic_core.jobs import job\n"
        "job(lambda: None)\n"
        "from eventic_core.runtime import performing\n"
        "print(*sorted(performing.names()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"eventic.dag_run", "eventic.jobs", "eventic.schedule", "eventic.backfill"} <= set(found)
