"""Metrics in Prometheus' text format: of the system, read from its database, and of this process, from memory.

Owns their names, labels and meanings. Every number costs the same at a million rows as at none; labels are queues,
workers, handlers, versions and kinds, never ids.
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from eventic_core.operations.look import Look
from eventic_core.runtime import counts
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import queue_name
from eventic_core.store.metrics import MOST, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from eventic_core.store.engine import Database
    from eventic_core.store.metrics import Numbers

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_KEPT_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 5.0
_MOST_QUEUES: Final = 200
_OTHER: Final = "other"
_BOUND: Final = f"counted up to {MOST:,}"

_Rows = dict[tuple[str, ...], float]


def render(*, system: bool = True) -> str:
    """Give the metrics as text; without Postgres those of this process, and `eventic_up` is 0.

    Takes some milliseconds, and no longer than five seconds if Postgres hangs; what the database says is read at most
    every five seconds, by one thread, on a connection of its own.

    Args:
        system: Whether those of the system are wanted, which are the same from every process.
    """
    from prometheus_client.exposition import generate_latest

    families = list(_of_process())
    if system:
        families += _of_system()
    return generate_latest(_Collected(families)).decode()


class _Collected:
    """What the library writes out: families that are made already, in no registry of this process."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


# -- this process


def _of_process() -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    for counter in counts.COUNTERS:
        family = CounterMetricFamily(counter.name, counter.meaning, labels=counter.labels)
        rows = counter.read() or ({} if counter.labels else {(): 0})
        for values, number in sorted(rows.items()):
            family.add_metric(values, number)
        yield family
    for durations in counts.DURATIONS:
        histogram = HistogramMetricFamily(durations.name, durations.meaning, labels=[durations.label])
        for value, (buckets, total) in sorted(durations.read().items()):
            histogram.add_metric([value], buckets, total)
        yield histogram


# -- the system


def _of_system() -> Iterator[Any]:
    numbers = None
    if process().is_connected:
        numbers = _look_at(os.getpid(), process().store.database).ask()
    yield _gauge("eventic_up", "Whether Postgres answered when the system was read.", {(): float(numbers is not None)})
    if numbers is None:
        return
    unread = {(name,): 1.0 for name, found in numbers._asdict().items() if found is None}
    yield _gauge("eventic_unread", "What could not be read: its tables, or rights, are missing.", unread, "what")
    yield from _of_queues(numbers)
    yield from _of_workers(numbers)
    yield from _of_runs(numbers)
    yield from _of_database(numbers)


def _of_queues(numbers: Numbers) -> Iterator[Any]:
    depth: _Rows = defaultdict(float)
    oldest: _Rows = defaultdict(float)
    for state, found in (("ready", numbers.ready), ("delayed", numbers.delayed)):
        for row in found or []:
            depth[queue_name(row.queue), state] += row.run_count
            waits = max(row.oldest_seconds, oldest[queue_name(row.queue),], 0.0)
            oldest[queue_name(row.queue),] = waits
    for running in numbers.running or []:
        depth[queue_name(running.queue or ""), "running"] += running.run_count
    totals: dict[str, float] = defaultdict(float)
    for (queue, _state), number in depth.items():
        totals[queue] += number
    shown = set(sorted(totals, key=lambda queue: (-totals[queue], queue))[:_MOST_QUEUES])
    meaning = f"Runs of a queue, {_BOUND}: ready, delayed (for at most five minutes from now) or running."
    yield _gauge("eventic_queue_depth", meaning, _bounded(depth, shown, sum), "queue", "state")
    meaning = (
        "How long the first of a queue's runs has been ready or due; of queue eventic_schedules, how late they are."
    )
    yield _gauge("eventic_queue_oldest_ready_seconds", meaning, _bounded(oldest, shown, max), "queue")


def _bounded(rows: _Rows, shown: set[str], together: Callable[[list[float]], float]) -> _Rows:
    """Put the queues that are not shown into one row."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for (queue, *more), number in rows.items():
        found[queue if queue in shown else _OTHER, *more].append(number)
    return {labels: together(several) for labels, several in found.items()}


def _of_workers(numbers: Numbers) -> Iterator[Any]:
    by_version: _Rows = defaultdict(float)
    running, claimed, beats = {}, {}, {}
    for worker in numbers.workers or []:
        by_version[worker.app_version, worker.state] += 1
        running[worker.slot,] = float(worker.running)
        claimed[worker.slot,] = float(worker.claimed)
        beats[worker.slot,] = worker.beat_seconds
    yield _gauge(
        "eventic_workers",
        "Workers by application version: alive, late or draining.",
        by_version,
        "app_version",
        "state",
    )
    yield _gauge("eventic_worker_running", "Runs that a worker is at, as of its last beat.", running, "worker")
    yield _gauge("eventic_worker_claimed", "Runs that a worker has claimed and not begun.", claimed, "worker")
    yield _gauge(
        "eventic_worker_beat_age_seconds", "Since a worker's last beat, by the server's clock.", beats, "worker"
    )


def _of_runs(numbers: Numbers) -> Iterator[Any]:
    open_letters: _Rows = {(row.handler,): float(row.letter_count) for row in numbers.letters or []}
    yield _gauge("eventic_dead_letters_open", f"Open dead letters, {_BOUND}.", open_letters, "handler")
    for runs in numbers.runs or []:
        going: _Rows = {("going",): runs.runs - runs.paused, ("paused",): runs.paused}
        yield _gauge("eventic_automation_runs", f"Runs of automations that have not ended, {_BOUND}.", going, "state")
        items: _Rows = {
            (name,): float(number) for name, number in runs._asdict().items() if name not in ("runs", "paused")
        }
        yield _gauge("eventic_automation_items", "Items of those runs, by state.", items, "state")
    for schedules in numbers.schedules or []:
        yield _gauge("eventic_schedules", "Schedules there are.", {(): float(schedules.schedules)})
        failing = {(): float(schedules.failing)}
        yield _gauge("eventic_schedules_failing", "Schedules whose last run could not be started.", failing)
        yield _counter("eventic_schedule_missed", "Due times that no worker came to in time.", schedules.missed)
        yield _counter("eventic_schedule_skipped", "Due times left out for a run that went on.", schedules.skipped)


def _of_database(numbers: Numbers) -> Iterator[Any]:
    for connections in numbers.connections or []:
        yield _gauge("eventic_connections", "Connections of the server in use.", {(): float(connections.used)})
        yield _gauge("eventic_connections_limit", "Connections there may be.", {(): float(connections.limit)})
    if numbers.transactions is not None:
        oldest = max((row.seconds for row in numbers.transactions), default=0.0)
        meaning = "Age of the oldest transaction that holds back vacuum or the change feed."
        yield _gauge("eventic_oldest_transaction_seconds", meaning, {(): oldest})
    for totals in numbers.totals or []:
        yield _gauge("eventic_database_size_bytes", "Size of the database.", {(): float(totals.size_bytes)})
        yield _counter("eventic_record_versions_written", "Versions of records ever written.", totals.versions)
        rows: _Rows = {("records",): float(totals.record_rows), ("workflow_status",): float(totals.run_rows)}
        yield _gauge("eventic_table_rows", "Rows as the server last estimated them.", rows, "table")


def _gauge(name: str, meaning: str, rows: Mapping[Any, float], *labels: str) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, number in sorted(rows.items()):
        family.add_metric(values, number)
    return family


def _counter(name: str, meaning: str, number: int) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, meaning)
    family.add_metric([], number)
    return family


@lru_cache(maxsize=4)
def _look_at(_pid: int, database: Database) -> Look[Numbers | None]:
    """Give the look at a database; a forked child has its own."""
    return Look(partial(read, database), kept_seconds=_KEPT_SECONDS, patience_seconds=_PATIENCE_SECONDS)
