"""Limits of single jobs: how many run at a time and begin in a time, over all workers together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import psycopg
import pytest
from limit_worker import API, MANY, RATED, SHARED, STALLED_SECONDS, TWO, noted, two

from eventic_core import Eventic, Invalid
from eventic_core.jobs import DagRun, ExecutionStatus, Job, dag, job, stored_dag
from eventic_core.runtime import takeover

S = ExecutionStatus
WORKER = Path(__file__).with_name("limit_worker.py")
QUEUES = "select queue_name, started_at_epoch_ms from dbos.workflow_status where parent_workflow_id = %s"


@pytest.fixture(scope="module")
def calls(workers: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A second worker of the tests' database, and the file in which both note what they do."""
    found = tmp_path_factory.mktemp("limits") / "calls"
    found.touch()
    child = subprocess.Popen(
        [sys.executable, WORKER, workers],
        env={**os.environ, "LIMIT_CALLS": str(found)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "launched\n"
    unhurried = pytest.MonkeyPatch()
    unhurried.setattr(takeover, "STALLED_SECONDS", STALLED_SECONDS)
    os.dup2(os.open(found, os.O_WRONLY | os.O_APPEND), sys.modules["limit_worker"]._calls)
    yield found
    unhurried.undo()
    child.terminate()
    child.communicate(timeout=100)


def ended(*runs: DagRun) -> None:
    for run in runs:
        assert run.wait(timeout_seconds=100).status == S.COMPLETED, run.error_summary


def most_at_a_time(calls: Path, *names: str) -> int:
    """Tell how many of these jobs ran at once; each must have ended."""
    lines = [line.rsplit(" ", 2) for line in calls.read_text().splitlines()]
    at_a_time = list(accumulate({"+": 1, "-": -1}[sign] for name, sign, _process in lines if name in names))
    assert at_a_time[-1] == 0
    return max(at_a_time)


def groups(workers: str, run: DagRun) -> list[tuple[str, int]]:
    """Give the groups of a run: the queue of each, and when it was begun."""
    with psycopg.connect(workers) as connection:
        return connection.execute(QUEUES, (str(run.id),)).fetchall()


def test_no_more_of_a_job_run_at_a_time_than_its_concurrency_over_two_workers(workers: str, calls: Path) -> None:
    runs = [TWO.start() for _ in range(8)]
    ended(*runs)
    assert most_at_a_time(calls, "two") <= 2
    assert {name for name, _ in groups(workers, runs[0])} == {"dag_limits_two__two", "dag_limits_two"}
    assert len(groups(workers, runs[0])) == 3  # one of them the second attempt's
    assert all(getattr(run.job_run("two"), "attempt_count", 0) == 2 for run in runs)


def test_no_more_of_a_job_begin_than_its_rate(workers: str, calls: Path) -> None:
    runs = [RATED.start() for _ in range(5)]
    ended(*runs)
    found = [group for run in runs for group in groups(workers, run)]
    begun = sorted(at for name, at in found if name == "dag_limits_rated__rated")
    assert len(begun) == 5
    assert all(later - earlier >= 1000 for earlier, later in zip(begun, begun[2:], strict=False))


def test_jobs_share_the_limits_of_a_queue_they_name(workers: str, calls: Path) -> None:
    runs = [SHARED.start() for _ in range(3)]
    ended(*runs)
    assert most_at_a_time(calls, "shared 0", "shared 1", "shared 2") == 1
    assert [name for name, _ in groups(workers, runs[0])] == ["limits_api"] * 3


def test_a_job_with_limits_shares_no_group(workers: str, calls: Path) -> None:
    run = MANY.start()
    ended(run)
    queues = Counter(name for name, _ in groups(workers, run) if name != "dag_limits_many")
    assert queues == {"dag_limits_many__many_4": 1, "dag_limits_many__many_11": 1}


def test_jobs_with_limits_are_run_again_on_their_queue(workers: str, calls: Path) -> None:
    run = TWO.start()
    ended(run)
    run.rerun("two")
    ended(run)
    with psycopg.connect(workers) as connection:
        found = connection.execute(QUEUES, (f"{run.id}:2",)).fetchall()
    assert {name for name, _ in found} == {"dag_limits_two__two"}


def test_a_limit_holds_for_all_stored_dags_together(workers: str, calls: Path) -> None:
    runs = []
    for number in range(6):
        Job(name="a", function="two", dag=f"limits: stored {number % 2}", client_id=str(number))
        runs.append(stored_dag(f"limits: stored {number % 2}", str(number)).start())
    ended(*runs)
    assert {name for run in runs for name, _ in groups(workers, run)} == {"job_two"}
    assert most_at_a_time(calls, "a") <= 2


def test_a_job_of_a_declared_dag_has_one_limit_there_and_in_what_is_stored_of_it(workers: str, calls: Path) -> None:
    run = TWO.stored("acme").start()
    ended(run)
    assert {name for name, _ in groups(workers, run)} == {"dag_limits_two__two", "eventic_jobs"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, r"concurrency=0\): with less than 1"),
        ({"concurrency": -2}, "concurrency=-2"),
        ({"rate": (0, 1.0)}, r"rate=\(0, 1.0\)\): say how many runs, 1 or more"),
        ({"rate": (1, 0)}, r"rate=\(1, 0\)\): .* in how many seconds, above 0"),
        ({"queue": API, "concurrency": 2}, r"queue='limits_api'\): its limits are those of the queue"),
        ({"queue": API, "rate": (2, 1)}, "queue='limits_api'"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        job(**options)


def test_limits_are_told_of_a_declared_dag() -> None:
    declared = dag("limits: told", job(name="plain")(noted), two, job(name="by queue", queue=API)(noted))
    assert {name: queue.name for name, queue in declared.limited.items()} == {
        "two": "dag_limits_told__two",
        "by queue": "limits_api",
    }
    assert not dag("limits: none", job(name="plain")(noted)).limited
    assert Eventic.queue("limits_api", limit=1).name == API.name
