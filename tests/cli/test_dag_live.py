"""What people see of a run of a DAG on a terminal: the jobs that fit, what moves of many, and totals of all."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from eventic_core.cli.dag_live import Seen, frame
from eventic_core.graph import NodeState
from eventic_core.jobs import DagRun, ExecutionStatus, JobContext, Retry, dag, job
from eventic_core.jobs.status import JobLook

S = NodeState
GATE = threading.Event()
FAILING: set[str] = set()
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    FAILING.clear()
    GATE.clear()
    yield
    GATE.set()


def states_of(letters: str) -> dict[str, NodeState]:
    words = {".": S.WAITING, "q": S.READY, "r": S.RUNNING, "C": S.COMPLETED, "F": S.FAILED, "S": S.SKIPPED}
    return {f"n{number}": words[letter] for number, letter in enumerate(letters)}


def shown(seen: Seen, letters: str, room: int) -> list[str]:
    return seen.moving(states_of(letters), room)


def test_all_jobs_are_shown_where_they_fit() -> None:
    assert shown(Seen(["n1", "n0", "n2"]), "C.q", 3) == ["n1", "n0", "n2"]


def test_of_many_jobs_those_are_shown_that_move() -> None:
    seen = Seen([f"n{number}" for number in range(8)])
    assert shown(seen, "qq......", 3) == ["n0", "n1", "n2"]
    assert shown(seen, "qCqr....", 3) == ["n3", "n0", "n2"]
    assert shown(seen, "CCqF....", 4) == ["n3", "n2", "n0", "n1"]
    assert shown(seen, "CCCF....", 3) == ["n3", "n2", "n0"]
    assert shown(seen, "CCCFCCCC", 3) == ["n3", "n7", "n6"]


def test_failures_never_hide_what_is_being_done_nor_the_other_way_round() -> None:
    seen = Seen([f"n{number}" for number in range(12)])
    assert {states_of("FFFFFFqqqqqq")[name] for name in shown(seen, "FFFFFFqqqqqq", 4)} == {S.FAILED, S.READY}
    assert shown(seen, "FFFFFFCCCCCq", 4)[2] == "n11"


def test_a_job_that_is_done_again_has_not_ended() -> None:
    seen = Seen(["n0", "n1", "n2", "n3"])
    shown(seen, "CCC.", 1)
    assert shown(seen, "CC..", 2) == ["n1", "n0"]
    assert shown(seen, "CCC.", 1) == ["n2"]


def run_of(**values: Any) -> DagRun:
    return DagRun.model_validate({"dag": "live", **values})


def drawn(run: DagRun, states: dict[str, NodeState], looks: list[JobLook], *, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=24, color_system=None)
    console.print(frame(run, states, looks))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_frame_has_a_line_for_each_job_and_the_totals_of_all() -> None:
    start = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
    states = states_of("CFr......")
    looks = [
        JobLook("n0", S.COMPLETED, 1, start, start + timedelta(seconds=1.5), ""),
        JobLook("n1", S.FAILED, 3, start, start + timedelta(seconds=2), "no\nsuch\x1b[2J thing " + "x" * 99),
        JobLook("n2", S.RUNNING, 1, datetime.now(UTC) - timedelta(hours=1), None, "waiting for run 7"),
        JobLook("n3", S.WAITING, 1, start, None, "waiting for: n2"),
    ]
    run = run_of(status=ExecutionStatus.PENDING, started_at=start, finished_at=start + timedelta(seconds=9))
    header, *lines, more, totals = drawn(run, states, looks)
    assert header.split() == ["JOB", "STATE", "ATTEMPT", "SECONDS", "WHY"]
    assert lines[0].split() == ["n0", "COMPLETED", "1", "1.5"]
    assert lines[1].split()[:4] == ["n1", "FAILED", "3", "2.0"]
    assert r"no\nsuch\x1b[2J thing xxx" in lines[1]
    assert lines[1].endswith("…")
    assert re.fullmatch(r"n2 +RUNNING +1 +360\d\.\d +waiting for run 7", lines[2])
    assert lines[3].split() == ["n3", "WAITING", "1", "waiting", "for:", "n2"]
    assert more == "... and 5 more"
    assert totals == "PENDING  9.0 s  2 of 9 jobs ended: 6 waiting, 1 running, 1 completed, 1 failed"


def test_a_paused_run_says_so_and_a_frame_is_as_high_as_its_lines_however_narrow() -> None:
    states = states_of("CCCC")
    looks = [JobLook(name, state, 1, None, None, "why " * 50) for name, state in states.items()]
    lines = drawn(run_of(paused=True), states, looks, width=20)
    assert len(lines) == 6
    assert lines[-1].startswith("PAUSED")


@job
def head() -> int:
    return 0


def one(number: int) -> Any:
    @job(name=f"part {number}", depends_on=[head], retry=Retry(max_attempts=2, delay_seconds=0))
    def part(context: JobContext) -> int:
        assert GATE.wait(100)
        if context.job in FAILING:
            raise ValueError("a part is missing")
        return number

    return part


PARTS = dag("live: parts", head, *[one(number) for number in range(30)])


class Terminal:
    """A command on a terminal of some size."""

    def __init__(self, *words: str, rows: int, columns: int) -> None:
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        bare = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eventic_core", *words],
            stdin=there,
            stdout=there,
            stderr=there,
            env={**bare, "TERM": "xterm-256color"},
        )
        os.close(there)
        self.text = ""

    def read(self) -> bool:
        """Read on; false at the end."""
        try:
            found = os.read(self._here, 65536)
        except OSError:  # nobody has the other end open any more
            found = b""
        self.text += found.decode(errors="replace")
        return bool(found)

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + 100
        while text not in self.plain:
            assert self.read(), self.text
            assert time.monotonic() < deadline, self.text

    @property
    def plain(self) -> str:
        """What was written, without what moves the cursor or sets colours."""
        return CONTROL.sub("", self.text)

    @property
    def last_frame(self) -> list[str]:
        """The table as it was drawn last, without the line after it."""
        drawn = self.plain[self.plain.rindex("JOB ") :].splitlines()
        return [line.rstrip() for line in drawn[:-1]]

    @property
    def last_line(self) -> str:
        """What was written after the table."""
        return self.plain.splitlines()[-1]

    def end(self) -> int:
        while self.read():
            pass
        os.close(self._here)
        return self.process.wait(timeout=100)


def watching(run: DagRun, url: str) -> Terminal:
    return Terminal("dag", "watch", str(run.id), "--database-url", url, rows=12, columns=90)


def test_a_run_is_watched_on_a_terminal_to_its_end(workers: str) -> None:
    run = PARTS.start()
    terminal = watching(run, workers)
    terminal.read_until("1 of 31 jobs ended")
    terminal.read_until("... and 24 more")
    GATE.set()
    assert terminal.end() == 0
    assert "\x1b[" in terminal.text
    assert terminal.last_line == f"{run.id}  COMPLETED"
    header, *lines, totals = terminal.last_frame
    assert header.split() == ["JOB", "STATE", "ATTEMPT", "SECONDS", "WHY"]
    assert len(lines) == 8  # with these and the run's last line there is one left for the cursor
    assert all(re.fullmatch(r"(head|part \d+) +COMPLETED +1 +\d+\.\d", line) for line in lines[:-1])
    assert lines[-1] == "... and 24 more"
    assert re.fullmatch(r"COMPLETED  \d+\.\d s  31 of 31 jobs ended: 31 completed", totals)


def test_a_failure_stays_in_sight_and_makes_the_command_end_so(workers: str) -> None:
    FAILING.add("part 0")
    run = PARTS.start()
    terminal = watching(run, workers)
    terminal.read_until("1 of 31 jobs ended")
    GATE.set()
    assert terminal.end() == 1
    assert terminal.last_line == f"{run.id}  FAILED  1 of 31 jobs failed: part 0."
    (failed,) = [line for line in terminal.last_frame if line.startswith("part 0 ")]
    assert re.fullmatch(r"part 0 +FAILED +2 +\d+\.\d +a part is missing", failed)
