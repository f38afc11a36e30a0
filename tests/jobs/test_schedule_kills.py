"""Workers killed -9 while they start runs of a schedule, two at a time: each due time has one run, none is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import until
from schedule_worker import TICKS, Tick

from eventic_core.jobs import ExecutionStatus

WORKER = Path(__file__).with_name("schedule_worker.py")
DEADLINE_SECONDS = 100
KILLS, MORE = 2, 4


class Workers:
    """Worker processes, and the file in which they note that they are about to start a run."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.calls = folder / "calls"
        self.calls.touch()
        self.running: dict[int, subprocess.Popen[str]] = {}

    def start(self) -> None:
        child = subprocess.Popen(
            [sys.executable, WORKER, self.url],
            env={**os.environ, "SCHEDULE_CALLS": str(self.calls)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "launched\n"
        self.running[child.pid] = child

    def kill_one_that_starts_a_run(self) -> None:
        """Kill a worker in the middle of the transaction in which it starts a run."""
        known = len(self.calls.read_text())
        until(lambda: len(self.calls.read_text()) > known)
        self.kill(int(self.calls.read_text().split()[-1]))

    def kill(self, pid: int) -> None:
        child = self.running.pop(pid)
        child.kill()
        child.communicate(timeout=100)


@pytest.mark.timeout(600)
def test_each_due_time_has_one_run_whoever_dies(eventic: str, tmp_path: Path) -> None:
    workers = Workers(eventic, tmp_path)
    try:
        workers.start()
        workers.start()
        schedule = TICKS.schedule("every second", overlap="allow")
        for _ in range(KILLS):
            workers.kill_one_that_starts_a_run()
            workers.start()
        known = len(schedule.runs(limit=None))
        until(lambda: len(schedule.runs(limit=None)) >= known + MORE)
        schedule.pause()
        runs = schedule.runs(limit=None)
        for run in runs:
            assert run.wait(timeout_seconds=DEADLINE_SECONDS).status == ExecutionStatus.COMPLETED
        due = sorted(run.due_at for run in runs if run.due_at is not None)
        assert due == [due[0] + timedelta(seconds=number) for number in range(len(runs))]
        assert due[0] - schedule.history()[-1].stamp.recorded_at <= timedelta(seconds=1)
        assert sorted(one.due for one in Tick.where().all()) == [moment.isoformat() for moment in due]
        progress = schedule.progress()
        assert progress is not None
        assert (progress.missed, progress.skipped, progress.last_error) == (0, 0, None)
    finally:
        for pid in list(workers.running):
            workers.kill(pid)
