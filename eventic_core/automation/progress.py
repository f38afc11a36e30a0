"""How far a run is, from its counters: read once, waited for, or watched."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import ResultTimeout, RunNotFound
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.runtime.process import process
from eventic_core.store.counters import CounterTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from eventic_core.store.counters import Counters

_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.01, 0.5
_RATE_SECONDS = 10.0
_NOTED = ("paused", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        status: Of the run.
        state: `running`, `paused`, `stopped` (more failed than is tolerated) or `ended`.
        failures: Failed items by the class of their error.
        rate: Items a second that reach an end: of late where the run is watched, else since it began.
        eta_seconds: Until the end at that rate; `None` while there is none.
    """

    run_id: UUID
    status: ExecutionStatus
    state: str
    total: int
    pending: int
    processing: int
    retrying: int
    completed: int
    failed: int
    cancelled: int
    skipped: int
    failures: dict[str, int]
    elapsed_seconds: float
    rate: float | None
    eta_seconds: float | None

    @property
    def done(self) -> int:
        """Items that reached an end: completed, failed, cancelled or skipped."""
        return self.completed + self.failed + self.cancelled + self.skipped

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens."""
        return self.state == "ended"

    def values(self) -> dict[str, Any]:
        """Give it by names, `done` too, as the command line and HTTP show it."""
        return asdict(self) | {"done": self.done}


class _Watch:
    """Reads a run's counters again and again, and makes a rate of the last ones."""

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self._store = process().store
        self._table = CounterTable(self._store.database)
        self._seen: deque[tuple[float, int]] = deque()

    def read(self) -> Progress:
        rows = self._table.read(self._run_id)
        if not rows:
            message = f"Nothing executes run {self._run_id}: it was not started by an automation declared in code."
            raise RunNotFound(message)
        failures = self._table.failures(self._run_id)
        head = self._store.head(self._run_id)  # after the counters: a run whose items ended has its last status too
        assert head is not None
        return self._progress(rows[0], failures, ExecutionStatus(head.document["status"]))

    def _progress(self, counters: Counters, failures: dict[str, int], status: ExecutionStatus) -> Progress:
        until = counters.changed_at if counters.state == "ended" else counters.read_at
        elapsed = max((until - counters.started_at).total_seconds(), 1e-6)
        done = counters.completed + counters.failed + counters.cancelled + counters.skipped
        self._seen.append((elapsed, done))
        while len(self._seen) > 2 and elapsed - self._seen[0][0] > _RATE_SECONDS:  # noqa: PLR2004 - a stretch has two ends
            self._seen.popleft()
        before, done_before = self._seen[0] if len(self._seen) > 1 and done > self._seen[0][1] else (0.0, 0)
        rate = (done - done_before) / (elapsed - before) if done > done_before and elapsed > before else None
        left = counters.unfinished
        return Progress(
            run_id=self._run_id,
            status=status,
            state=counters.state,
            total=counters.total,
            pending=counters.pending,
            processing=counters.processing,
            retrying=counters.retrying,
            completed=counters.completed,
            failed=counters.failed,
            cancelled=counters.cancelled,
            skipped=counters.skipped,
            failures=failures,
            elapsed_seconds=elapsed,
            rate=rate,
            eta_seconds=left / rate if rate and counters.state == "running" else None,
        )


def read(run_id: UUID) -> Progress:
    """Read how far a run is.

    Raises:
        RunNotFound: Nothing executes it.
    """
    refuse_in_loop("progress()", "asyncio.to_thread(run.progress)")
    return _Watch(run_id).read()


def wait(run_id: UUID, *, timeout_seconds: float | None, show: bool) -> None:
    """Wait until a run has ended; see `Run.wait`."""
    refuse_in_loop("wait()", "wait_async()")
    from eventic_core.automation.terminal import progress_bar

    watch = _Watch(run_id)
    seen = watch.read()
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pause = _FIRST_POLL_SECONDS
    with progress_bar(seen.total if show else None, f"run {run_id}") as bar:
        while True:
            bar.update(
                seen.done,
                failed=seen.failed,
                retrying=seen.retrying,
                rate=seen.rate,
                eta_seconds=seen.eta_seconds,
                note=seen.state if seen.state in _NOTED else "",
            )
            if seen.is_ended:
                return
            if deadline is not None and time.monotonic() >= deadline:
                done = f"{seen.done:,} of {seen.total:,} items are done"
                message = f"Run {run_id} did not end within {timeout_seconds} s: {done}. It goes on."
                raise ResultTimeout(message)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS if not show else 0.2)
            seen = watch.read()


async def watch(run_id: UUID, *, seconds: float) -> AsyncIterator[Progress]:
    """See how far a run is each time that changes, until it has ended; see `Run.watch`."""
    watch = _Watch(run_id)
    before: tuple[object, ...] = ()
    while True:
        seen = await in_thread(watch.read)
        now = (seen.state, seen.done, seen.failed, seen.retrying, seen.processing)
        if now != before:
            before = now
            yield seen
        if seen.is_ended:
            return
        await asyncio.sleep(seconds)
