"""Workers killed -9 and Postgres restarted in the middle of a DAG: each job ends once, as the pure model says.

What is checked is seen from outside of the engine: a file that notes every call, and the rows.
"""

from __future__ import annotations

import collections
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from dag_worker import COPIES, DIAMOND, ELEMENTS, INNER, KILLED, NESTED, OUTCOMES, POISONED, Made
from killing import restart

from eventic_core import Eventic
from eventic_core.automation import Batch, Run
from eventic_core.graph import NodeState, play, run_state
from eventic_core.jobs import DagRun

WORKER = Path(__file__).with_name("dag_worker.py")
DEADLINE_SECONDS = 100
STATUSES = """
select data ->> 'job', count(*) filter (where data ->> 'status' in ('COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')),
       max(extract(epoch from recorded_at)::float8)
from eventic.records where class_type = 'JobRun' and data ->> 'dag_run_id' = %s group by 1
"""


class Workers:
    """Worker processes, and the file in which they note their calls."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.calls = folder / "calls"
        self.running: list[subprocess.Popen[str]] = []

    def start(self, **environment: str) -> None:
        child = subprocess.Popen(
            [sys.executable, WORKER, self.url],
            env={**os.environ, "DAG_CALLS": str(self.calls), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "launched\n"
        self.running.append(child)

    def kill(self) -> None:
        child = self.running.pop(0)
        child.kill()
        child.communicate(timeout=100)


def wait_for(run: DagRun, share: float) -> None:
    """Wait until so many of a run's jobs have ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while sum(state.is_finished for state in run.states().values()) < share * len(KILLED.jobs):
        assert time.monotonic() < deadline, run.states()
        time.sleep(0.01)


@pytest.mark.timeout(600)
def test_a_dag_survives_kills_and_a_restart_of_postgres(own_server: tuple[str, Path], tmp_path: Path) -> None:
    url, data = own_server
    Eventic.init(name="kills", database_url=url)
    workers = Workers(url, tmp_path)
    try:
        workers.start()
        workers.start()
        run = KILLED.start(correlation_id="ext-1")
        for share in (0.15, 0.3):
            wait_for(run, share)
            workers.kill()
            workers.start()
        restart(data)
        for share in (0.5, 0.7):
            wait_for(run, share)
            workers.kill()
            workers.start()
        run.wait(timeout_seconds=DEADLINE_SECONDS)
        check(url, run, workers.calls.read_text().splitlines())
    finally:
        while workers.running:
            workers.kill()
        Eventic.shutdown()


@pytest.mark.timeout(600)
def test_jobs_that_kill_their_worker_are_given_up_and_the_rest_ends(
    own_server: tuple[str, Path], tmp_path: Path
) -> None:
    url, _data = own_server
    Eventic.init(name="kills", database_url=url)
    workers = Workers(url, tmp_path)
    try:
        workers.start()
        run = POISONED.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not run.status.is_finished:
            assert time.monotonic() < deadline, run.states()
            if workers.running[0].poll() is not None:
                workers.kill()
                workers.start()
            time.sleep(0.05)
            run.refresh()
        states = run.states()
        assert {name for name, state in states.items() if state is NodeState.FAILED} == {"poison", "poisoned"}
        assert states["survived"] is NodeState.COMPLETED
        part, mapped = run.job_run("poison"), run.job_run("poisoned")
        assert part is not None
        assert mapped is not None
        assert (part.error_type, part.attempt_count) == ("WorkerDied", 2)
        assert (mapped.error_type, mapped.attempt_count) == ("ChildRunFailed", 1)
        calls = collections.Counter(line.split()[0] for line in workers.calls.read_text().splitlines())
        assert calls["poison"] == 4, "twice by chance, and twice when it was the only suspect"
        made = collections.Counter(record.job for record in Made.where().all())
        innocent = {f"innocent {number}": 1 for number in range(10)}
        assert made == {**innocent, "poisoned": ELEMENTS - 1, "survived": 1}
    finally:
        while workers.running:
            workers.kill()
        Eventic.shutdown()


@pytest.mark.timeout(600)
def test_workers_that_die_at_any_statement_do_each_job_once(database_url: str, tmp_path: Path) -> None:
    Eventic.init(name="kills", database_url=database_url)
    workers = Workers(database_url, tmp_path)
    chance = random.Random(11)
    deaths = 0
    try:
        workers.start(DAG_STATEMENTS="1")
        run = DIAMOND.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not run.status.is_finished:
            assert time.monotonic() < deadline, run.states()
            if workers.running[0].poll() is not None:
                workers.kill()
                workers.start(DAG_STATEMENTS=str(chance.randint(2, 120)))
                deaths += 1
            time.sleep(0.02)
            run.refresh()
        assert deaths > 3, deaths
        assert (run.status, run.result("gathered")) == ("COMPLETED", sum(range(ELEMENTS)) + 1)
        made = collections.Counter(record.job for record in Made.where().all())
        once = dict.fromkeys(("source", "nested", "beside", "gathered", "inside"), 1)
        assert made == {**once, "spread": ELEMENTS}
        assert [part.status for part in run.job_runs()] == ["COMPLETED"] * 5
        assert (DagRun.where().count(), Run.where().count(), Batch.where().count()) == (2, 1, 1)
        with psycopg.connect(database_url) as connection:
            assert connection.execute("select count(*) from eventic.waits").fetchall() == [(0,)]
    finally:
        while workers.running:
            workers.kill()
        Eventic.shutdown()


def check(url: str, run: DagRun, calls: list[str]) -> None:
    """Check everything about the run."""
    plan = KILLED.plan
    expected = {name: end.state for name, end in play(plan.dag, plan.rules, OUTCOMES).items()}
    assert run.states() == expected
    assert str(run.status) == str(run_state(plan.dag, expected))
    # A job that skips itself keeps what it wrote; one that failed does not.
    ran = {line.split()[0] for line in calls}
    kept = [name for name, state in expected.items() if state is NodeState.COMPLETED]
    kept += [name for name, state in expected.items() if state is NodeState.SKIPPED and name in ran]
    made = collections.Counter(record.job for record in Made.where().all())
    assert made.pop("inside") == len(NESTED & set(kept)) == DagRun.where(dag=INNER.name).count()
    assert made == {name: COPIES.get(name, 1) for name in kept}
    assert COPIES.keys() & set(kept)
    with psycopg.connect(url) as connection:
        rows = connection.execute(STATUSES, (str(run.id),)).fetchall()
    assert {name: ends for name, ends, _at in rows} == dict.fromkeys(expected, 1), "a job ended twice, or never"
    ended = {name: at for name, _ends, at in rows}
    late = [line for line in calls if float(line.split()[2]) > ended[line.split()[0]] + 0.001]
    assert late == [], "a job was done again after its end was stored"
    assert not ran & {name for name, state in expected.items() if state is NodeState.UPSTREAM_FAILED}
