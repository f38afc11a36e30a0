"""What the benchmarks share: a Postgres of their own, measuring side by side, and the report."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
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


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the report. The ratio is ours over the floor, or with `more_is_better` the other way round."""

    row: str
    ours: float
    floor: float
    bar: float
    unit: str = "us"
    note: str = ""
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How the row compares, as its bar states it."""
        return self.floor / self.ours if self.more_is_better else self.ours / self.floor

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        met = self.ratio >= self.bar if self.more_is_better else self.ratio <= self.bar
        return "met" if met else "MISSED"


class Server:
    """A Postgres to measure on: makes databases and connects to them."""

    def __init__(self, url: str) -> None:
        self.url = libpq_url(url)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Give the URL of a new database with the tables, dropped afterwards."""
        name = f"bench_{uuid4().hex[:12]}"
        with self.connect(self.url) as connection:
            connection.execute(f"create database {name}")
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        try:
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
        yield Server(embedded.url)
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
        print(f"{'row':<16}{'ours':>12}{'floor':>12} {'unit':<8}{'ratio':>7}{'bar':>7}  verdict", flush=True)
    for result in results:
        numbers = {"ours": round(result.ours, 2), "floor": round(result.floor, 2), "ratio": round(result.ratio, 3)}
        if as_json:
            print(json.dumps({"row": result.row, **numbers, "unit": result.unit}), flush=True)
        else:
            sign = ">=" if result.more_is_better else "<="
            bar = f"{sign}{result.bar:g}"
            values = f"{result.ours:>12,.1f}{result.floor:>12,.1f} {result.unit:<8}{result.ratio:>6.2f}x{bar:>7}"
            print(f"{result.row:<16}{values}  {result.verdict:<6}  {result.note}".rstrip(), flush=True)
