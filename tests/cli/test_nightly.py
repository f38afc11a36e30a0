"""The demo's nightly, run by `eventic dag run --work`: what it prints, and that stopped or killed it ends all the same.

Each command is a process that does the jobs itself; there is no other worker.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from conftest import rows, until
from test_dag_live import Terminal

APP = ("--app", "eventic_core.cli._nightly")
NIGHTLY = ("run", "demo-nightly", *APP, "--work")
JOBS = {"extract", "countries", "highest", "unknown", "load", "gate", "publish", "hold", "report"}
SECONDS = 100
PLANT = """
import sys
from eventic_core import Eventic
from eventic_core.cli._airports import Airport, read_source
Eventic.init(name="plant", database_url=sys.argv[1])
every, unknown = map(int, sys.argv[2:])
rows = read_source().rows[::every]
rows = [{**row, "elevation": None if number < unknown else row["elevation"]} for number, row in enumerate(rows)]
low = [{**rows[0], "country": "Low", "iata": iata, "elevation": feet} for iata, feet in (("LO1", 0), ("LO2", -9))]
Airport.create_many([*rows, *low])
"""
MOVE = """
import sys
from eventic_core import Eventic
from eventic_core.cli._airports import Airport
Eventic.init(name="move", database_url=sys.argv[1])
Airport.where(country=sys.argv[2]).first().update(country=sys.argv[3])
"""
STORED = "select count(*) from eventic.records where class_type = 'DemoCountry'"
COUNTRIES = """select data ->> 'code', (data ->> 'airports')::int, data ->> 'highest', version from eventic.records
               where class_type = 'DemoCountry' and superseded_at is null order by 1"""
EXPECTED = """select data ->> 'country', count(*), (array_agg(data ->> 'iata' order by
                     (data ->> 'elevation')::float desc nulls last, data ->> 'iata' collate "C" desc))[1]
              from eventic.records
              where class_type = 'DemoAirport' and superseded_at is null group by 1 order by 1"""
ENDS = """select data ->> 'job', count(*) from eventic.records where class_type = 'JobRun'
          and data ->> 'status' in ('COMPLETED', 'SKIPPED') group by 1"""
REPORTED = """select data ->> 'result_payload' from eventic.records
              where data ->> 'job' = 'report' and data ->> 'status' = 'COMPLETED'"""
NIGHTS = "select data ->> 'text' from eventic.records where class_type = 'DemoNightly'"

pytestmark = pytest.mark.usefixtures("bare_environment")


def call(script: str, url: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-c", script, url, *map(str, arguments)], check=True, timeout=SECONDS)


def plant(url: str, *, every: int, unknown: int = 0) -> None:
    """Store one of so many airports, the first of them at an elevation that nobody knows."""
    call(PLANT, url, every, unknown)


def begin(url: str, *words: str, drain_seconds: float = 30) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eventic_core", "dag", *words, "--database-url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EVENTIC_DRAIN_SECONDS": str(drain_seconds)},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    """Wait for its end; gives its exit code, lines and what it wrote on stderr."""
    try:
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert "Traceback" not in errors, errors
    return process.returncode, output.splitlines(), errors


def run(url: str, *words: str) -> list[str]:
    """Run a command that completes the nightly, and give its lines."""
    code, lines, errors = end(begin(url, *words))
    assert code == 0, errors
    return lines


@contextmanager
def held_back(url: str, code: str) -> Iterator[Callable[[], bool]]:
    """Keep a country from being stored, as somebody who writes it would; gives whether a worker waits for that."""
    key = "insert into eventic.record_keys values (gen_random_uuid(), 'DemoCountry', 'code', %s)"
    blocked = "select from pg_stat_activity where {} = any(pg_blocking_pids(pid))"
    with psycopg.connect(url) as holder:
        holder.execute(key, [f'"{code}"'])
        yield lambda: bool(rows(url, blocked.format(holder.info.backend_pid)))
        holder.rollback()


def kill_when_stored(url: str, run_id: str, count: int) -> None:
    """Go on with a run until so many countries are stored, and kill what does so; it may have ended before."""
    worker = begin(url, "watch", run_id, *APP, "--work")
    until(lambda: worker.poll() is not None or rows(url, STORED)[0][0] >= count)
    worker.kill()
    worker.communicate()


def assert_each_is_stored_once(url: str) -> None:
    found, expected = rows(url, COUNTRIES), rows(url, EXPECTED)
    assert [row[:3] for row in found] == expected
    assert {version for *_, version in found} == {0}
    assert rows(url, STORED) == [(len(expected),)]
    assert dict(rows(url, ENDS)) == dict.fromkeys(JOBS, 1)
    assert len(rows(url, NIGHTS)) == 1


def test_a_nightly_prints_a_line_for_each_job_and_the_next_one_stores_only_what_has_changed(migrated_url: str) -> None:
    plant(migrated_url, every=30)
    run_id, *jobs, last = run(migrated_url, *NIGHTLY)
    assert {line.split()[0] for line in jobs} == JOBS
    assert [line for line in jobs if not line.endswith("  COMPLETED")] == [
        "hold  SKIPPED  skipped: gate did not choose it"
    ]
    assert last == f"{run_id}  COMPLETED"
    assert_each_is_stored_once(migrated_url)
    (source, *_), (target, *_) = sorted(rows(migrated_url, COUNTRIES), key=lambda row: -row[1])[:2]
    call(MOVE, migrated_url, source, target)
    again, *_ = run(migrated_url, *NIGHTLY)
    assert again != run_id
    found = rows(migrated_url, COUNTRIES)
    assert [row[:3] for row in found] == rows(migrated_url, EXPECTED)
    assert {code for code, *_, version in found if version == 1} == {source, target}
    assert {version for *_, version in found} == {0, 1}
    assert len(rows(migrated_url, NIGHTS)) == 2


def test_a_nightly_is_watched_on_a_terminal_while_it_works(migrated_url: str) -> None:
    plant(migrated_url, every=60)
    with held_back(migrated_url, "US"):
        terminal = Terminal("dag", *NIGHTLY, "--database-url", migrated_url, rows=24, columns=90)
        terminal.read_until("PROCESSING")
        terminal.read_until("6 of 9 jobs ended: 2 waiting, 1 running, 5 completed, 1 skipped")
    assert terminal.end() == 0
    run_id, *_ = terminal.plain.splitlines()
    assert f"{run_id}  COMPLETED" in terminal.plain.splitlines()
    header, *lines = terminal.plain[terminal.plain.rindex("JOB ") :].splitlines()
    assert header.split() == ["JOB", "STATE", "ATTEMPT", "SECONDS", "WHY"]
    assert {line.split()[0] for line in lines[: len(JOBS)]} == JOBS
    assert re.fullmatch(r"COMPLETED  .* 9 of 9 jobs ended: 8 completed, 1 skipped *", lines[len(JOBS)])
    assert_each_is_stored_once(migrated_url)


def test_a_night_with_too_many_unknown_elevations_is_held_back(migrated_url: str) -> None:
    plant(migrated_url, every=60, unknown=20)
    _, *jobs, last = run(migrated_url, *NIGHTLY)
    assert "hold  COMPLETED" in jobs
    assert "publish  SKIPPED  skipped: gate did not choose it" in jobs
    assert last.endswith("  COMPLETED")
    assert rows(migrated_url, NIGHTS) == []
    assert rows(migrated_url, REPORTED) == [("held back: 20 elevations are not known",)]


def test_killed_in_the_middle_it_is_ended_by_whoever_watches_and_works(migrated_url: str) -> None:
    plant(migrated_url, every=5)
    worker = begin(migrated_url, *NIGHTLY)
    assert worker.stdout is not None
    run_id = worker.stdout.readline().strip()
    with held_back(migrated_url, "US") as is_blocked:
        until(is_blocked)
        worker.kill()
        worker.communicate()
    kill_when_stored(migrated_url, run_id, 1)
    kill_when_stored(migrated_url, run_id, len(rows(migrated_url, EXPECTED)) // 2)
    *jobs, last = run(migrated_url, "watch", run_id, *APP, "--work")
    assert {line.split()[0] for line in jobs} == JOBS
    assert last == f"{run_id}  COMPLETED"
    assert_each_is_stored_once(migrated_url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_drains_and_leaves_the_run_to_the_next_worker(migrated_url: str, number: int) -> None:
    plant(migrated_url, every=60)
    with held_back(migrated_url, "US") as is_blocked:
        worker = begin(migrated_url, *NIGHTLY, drain_seconds=0.5)
        until(is_blocked)
        worker.send_signal(number)
        code, lines, errors = end(worker)
    assert code == 130
    run_id, *jobs = lines
    assert {line.split()[0] for line in jobs} < JOBS - {"load"}
    again = f"eventic dag watch {run_id} --app {APP[1]} --work"
    assert errors.splitlines()[-1] == (
        f"Run {run_id} goes on with the next worker: `eventic worker {APP[1]}`, or `{again}`."
    )
    assert run(migrated_url, *again.split()[2:])[-1] == f"{run_id}  COMPLETED"
    assert_each_is_stored_once(migrated_url)
