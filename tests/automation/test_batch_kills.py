"""Workers killed -9 and Postgres restarted in the middle of a run: every item is done once, and counted once.

What is checked is seen from outside of the engine: a file that notes every call, and the rows.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from batch_worker import CONCURRENCY, GROUP_SIZE, Ended, Imported, by_group, by_item, poison
from conftest import until
from killing import restart

from eventic_core import Eventic
from eventic_core.automation.run import Run
from eventic_core.runtime.process import process
from eventic_core.store.counters import CounterTable

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = Path(__file__).with_name("batch_worker.py")
DEADLINE_SECONDS = 100


class Workers:
    """Worker processes, and the file in which they note their calls."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.calls = folder / "calls"
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, WORKER, self.url],
            env={**os.environ, "BATCH_CALLS": str(self.calls)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "launched\n"
        self.running.append(child)
        return child

    def kill(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        child.communicate(timeout=100)
        self.running.remove(child)

    def noted(self) -> list[Call]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [Call(int(number), int(attempt), float(at)) for number, attempt, at, _pid in map(str.split, lines)]


@dataclass
class Call:
    number: int
    attempt: int
    at: float


@pytest.fixture
def workers(database_url: str, tmp_path: Path) -> Iterator[Workers]:
    Eventic.init(name="kills", database_url=database_url)
    found = Workers(database_url, tmp_path)
    yield found
    for child in list(found.running):
        found.kill(child)
    Eventic.shutdown()


def wait_for(run: Run, done: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while run.progress().done < done:
        assert time.monotonic() < deadline, run.progress()
        time.sleep(0.02)


@dataclass
class Execution:
    number: int
    status: str
    attempts: int
    error_type: str | None
    ended_at: float


def executions(url: str, run: Run) -> list[Execution]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select (data->>'number')::int, data->>'status', (data->>'attempt_count')::int, data->>'error_type', "
            "extract(epoch from recorded_at)::float8 from eventic.records "
            "where class_type = 'ItemExecution' and superseded_at is null and data->>'run_id' = %s order by 1",
            (str(run.id),),
        ).fetchall()
    return [Execution(*row) for row in rows]


def moves(url: str, run: Run) -> collections.Counter[str]:
    """Every item's statuses in order, and how many items have this history."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select string_agg(left(data->>'status', 2), ' ' order by version) from eventic.records "
            "where class_type = 'ItemExecution' and data->>'run_id' = %s group by id",
            (str(run.id),),
        ).fetchall()
    return collections.Counter(row[0] for row in rows)


def check_counters(run: Run, found: list[Execution]) -> None:
    whole, *parts = CounterTable(process().store.database).read(run.id)
    counted = collections.Counter(execution.status.lower() for execution in found)
    for name in ("pending", "processing", "retrying", "completed", "failed", "cancelled", "skipped"):
        assert getattr(whole, name) == counted[name], (name, whole, counted)
        assert sum(getattr(part, name) for part in parts) == counted[name]
    assert whole.total == len(found)


def expected_attempts(number: int) -> int:
    if number % 200 == 7:
        return 3
    return 2 if number % 100 == 3 else 1


def check(url: str, run: Run, calls: list[Call], *, total: int) -> int:
    """Check everything about a run of `work`; gives how many calls were made again after a kill."""
    found = executions(url, run)
    assert len(found) == total
    for execution in found:
        bad = execution.number % 200 == 7
        assert execution.status == ("FAILED" if bad else "COMPLETED")
        assert execution.attempts == expected_attempts(execution.number)
    check_counters(run, found)
    assert run.status == "COMPLETED"
    good = [number for number in range(1, total + 1) if number % 200 != 7]
    imported = Imported.where().all()
    assert sorted(record.number for record in imported) == good
    assert {record.version for record in imported} == {0}
    assert {record.stamp.step_id == record.number for record in imported} == {True}
    assert {record.stamp.workflow_id for record in imported} == {str(run.id)}
    ended = {execution.number: execution.ended_at for execution in found}
    late = [call for call in calls if call.at > ended[call.number] + 0.001]
    assert late == [], "an item was done again after its end was stored"
    return len(calls) - sum(execution.attempts for execution in found)


def wait_for_handler() -> None:
    until(Ended.where().all)


@pytest.mark.timeout(600)
def test_a_run_survives_two_kills_and_a_restart_of_postgres(own_server: tuple[str, Path], tmp_path: Path) -> None:
    url, data = own_server
    total = 20_000
    Eventic.init(name="kills", database_url=url)
    workers = Workers(url, tmp_path)
    try:
        batch = by_group.batch("kills", ({"number": number} for number in range(1, total + 1)))
        workers.start()
        first = workers.start()
        run = by_group.start(batch, correlation_id="ext-1")
        wait_for(run, total // 3)
        workers.kill(first)
        second = workers.start()
        wait_for(run, total // 2)
        restart(data)
        wait_for(run, total * 2 // 3)
        workers.kill(second)
        workers.start()
        run.wait(timeout_seconds=DEADLINE_SECONDS)
        again = check(url, run, workers.noted(), total=total)
        assert again <= 2 * CONCURRENCY * GROUP_SIZE, "more was done again than the open transactions of two workers"
        wait_for_handler()
        assert [record.run for record in Ended.where().all()] == [run.id]
        histories = moves(url, run)
        assert histories["PE PR CO"] == total - total // 100 - total // 200
        assert histories["PE PR RE PR CO"] == total // 100
        assert histories["PE PR RE PR RE PR FA"] == total // 200
    finally:
        for child in list(workers.running):
            workers.kill(child)
        Eventic.shutdown()


def test_with_a_checkpoint_for_each_item_a_kill_repeats_only_what_was_being_done(workers: Workers) -> None:
    total = 800
    batch = by_item.batch("kills", ({"number": number} for number in range(1, total + 1)))
    first = workers.start()
    run = by_item.start(batch)
    wait_for(run, total // 3)
    workers.kill(first)
    workers.start()
    run.wait(timeout_seconds=DEADLINE_SECONDS)
    found = executions(workers.url, run)
    calls = workers.noted()
    ended = {execution.number: execution.ended_at for execution in found}
    assert [call for call in calls if call.at > ended[call.number] + 0.001] == []
    check_counters(run, found)
    assert sorted(record.number for record in Imported.where().all()) == [
        execution.number for execution in found if execution.status == "COMPLETED"
    ]
    died = [execution for execution in found if execution.attempts > expected_attempts(execution.number)]
    assert len(died) <= CONCURRENCY, "a kill is an attempt only of what was being done"
    assert len(calls) - sum(expected_attempts(execution.number) for execution in found) <= CONCURRENCY


def test_an_item_that_kills_its_worker_is_given_up_and_the_rest_are_done(workers: Workers) -> None:
    total = 400
    batch = poison.batch("kills", ({"number": number} for number in range(1, total + 1)))
    run = poison.start(batch)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not run.progress().is_ended:
        assert time.monotonic() < deadline, run.progress()
        if not workers.running or workers.running[-1].poll() is not None:
            workers.start()
        time.sleep(0.05)
    found = executions(workers.url, run)
    assert [(e.number, e.error_type) for e in found if e.status != "COMPLETED"] == [(150, "WorkerDied")]
    assert sorted(record.number for record in Imported.where().all()) == [n for n in range(1, total + 1) if n != 150]
    check_counters(run, found)
    run.refresh()
    assert run.status == "COMPLETED"
    [given_up] = [execution for execution in found if execution.status == "FAILED"]
    assert given_up.attempts == 3
