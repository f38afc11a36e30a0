"""What the benchmarks share: a Postgres of their own, processes beside, measuring side by side, and the report."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psutil
import psycopg

from eventic_core import Eventic
from eventic_core.settings import libpq_url
from eventic_core.store.embedded import start_embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

STOP_SECONDS = 15.0
READY = "ready"


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the report.

    The ratio is ours over the floor's, but of times with `more_is_better` how many times faster; the bar is on the
    ratio, or with `absolute` on ours.
    """

    row: str
    ours: float
    floor: float
    bar: float
    unit: str = "us"
    note: str = ""
    more_is_better: bool = False
    absolute: bool = False

    @property
    def ratio(self) -> float:
        """How the row compares, as its bar states it."""
        faster = self.more_is_better and self.unit != "/s"
        over, under = (self.floor, self.ours) if faster else (self.ours, self.floor)
        return over / under if under else math.inf

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        measured = self.ours if self.absolute else self.ratio
        met = measured >= self.bar if self.more_is_better else measured <= self.bar
        return "met" if met else "MISSED"


class Server:
    """A Postgres to measure on: makes databases and connects to them."""

    def __init__(self, url: str, *, log: Path | None = None) -> None:
        self.url = libpq_url(url)
        self.log = log

    @contextlib.contextmanager
    def database(self, *, with_tables: bool = True) -> Iterator[str]:
        """Give the URL of a new database, with the tables if not told otherwise, dropped afterwards."""
        name = f"bench_{uuid4().hex[:12]}"
        with self.connect(self.url) as connection:
            connection.execute(f"create database {name}")
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        try:
            if with_tables:
                with eventic(url):
                    pass
            yield url
        finally:
            with self.connect(self.url) as connection:
                connection.execute(f"drop database {name} with (force)")

    @staticmethod
    def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect bare psycopg in autocommit; every statement is prepared the first time."""
        return psycopg.connect(url, autocommit=True, prepare_threshold=0, options="-c TimeZone=UTC")


@contextlib.contextmanager
def eventic(url: str) -> Iterator[None]:
    """Connect records to a database for the block."""
    Eventic.init(name="benchmarks", database_url=url)
    try:
        yield
    finally:
        Eventic.shutdown()


@contextlib.contextmanager
def server(url: str | None) -> Iterator[Server]:
    """Give the named server, or an embedded one of our own that is gone afterwards, pinned to a core beside ours."""
    if url is not None:
        _pin(None)
        yield Server(url)
        return
    folder = Path(tempfile.mkdtemp(prefix="eventic-bench-"))
    folder.chmod(0o755)  # user nobody, who runs Postgres for root, must reach it
    embedded = start_embedded(folder)
    pid_file = embedded.data_dir / "postmaster.pid"
    try:
        _pin(int(pid_file.read_text().split()[0]))
        yield Server(embedded.url, log=embedded.data_dir.parent / "log")
    finally:
        embedded.release()
        deadline = time.monotonic() + STOP_SECONDS
        while pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(embedded.data_dir.parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _pin(postmaster: int | None) -> None:
    """Give the client and our own server a core each, or ratios mean nothing."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    os.sched_setaffinity(0, {cores[0]})
    if postmaster is not None:
        for process in (psutil.Process(postmaster), *psutil.Process(postmaster).children()):
            with contextlib.suppress(ProcessLookupError):  # a worker that has done its work
                os.sched_setaffinity(process.pid, {cores[1]})


@contextlib.contextmanager
def beside(*command: str) -> Iterator[psutil.Process]:
    """Run a Python script in a process beside ours, on our core, from when it says it is ready until the block ends."""
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != READY:
            raise RuntimeError(f"{' '.join(command)} did not become ready")
        yield psutil.Process(process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def wait_to_be_stopped() -> None:
    """Say that this process, one beside a benchmark, is ready; returns when the benchmark is done with it."""
    print(READY, flush=True)
    sys.stdin.read()


def side_by_side(
    ours: Callable[[int], object], floor: Callable[[int], object], *, rounds: int, warm_up: int = 20
) -> tuple[float, float]:
    """Call both in turn, each time the other one first, with the number of the round.

    Returns:
        The median of each in microseconds.
    """
    for number in range(warm_up):
        ours(number)
        floor(number)
    times: dict[Callable[[int], object], list[int]] = {ours: [], floor: []}
    orders = itertools.cycle([(ours, floor), (floor, ours)])
    for number, order in zip(range(warm_up, warm_up + rounds), orders, strict=False):
        for call in order:
            start = time.perf_counter_ns()
            call(number)
            times[call].append(time.perf_counter_ns() - start)
    return statistics.median(times[ours]) / 1000, statistics.median(times[floor]) / 1000


def microseconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1000


def arguments(description: str, rows: Sequence[str]) -> argparse.Namespace:
    """Read the command line: which rows, how long, where and in what form."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", default=",".join(rows), help="rows to measure, comma-separated (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds, done within a minute")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each row instead of the table")
    parser.add_argument("--database-url", help="measure on this server (default: an embedded Postgres)")
    parsed = parser.parse_args()
    parsed.rows = [name.strip() for name in parsed.rows.split(",")]
    if unknown := sorted(set(parsed.rows) - set(rows)):
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(rows)}")
    return parsed


def report(results: Iterator[Result], *, as_json: bool) -> None:
    """Print each result as soon as it is there."""
    if not as_json:
        print(f"{'row':<18}{'ours':>12}{'floor':>12} {'unit':<8}{'ratio':>7}{'bar':>7}  verdict", flush=True)
    for result in results:
        numbers = {"ours": round(result.ours, 2), "floor": round(result.floor, 2), "ratio": round(result.ratio, 3)}
        if as_json:
            print(json.dumps({"row": result.row, **numbers, "unit": result.unit}), flush=True)
        else:
            sign = ">=" if result.more_is_better else "<="
            bar = f"{sign}{result.bar:g}"
            values = f"{result.ours:>12,.1f}{result.floor:>12,.1f} {result.unit:<8}{result.ratio:>6.2f}x{bar:>7}"
            print(f"{result.row:<18}{values}  {result.verdict:<6}  {result.note}".rstrip(), flush=True)
