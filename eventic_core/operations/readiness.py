"""Whether this process can work, and whether it still lives: what a load balancer and a supervisor ask.

Ready depends on Postgres, alive does not: a process is restarted because it is stuck, never because the database is
away. Both answer within three seconds, whatever hangs, and hold one thread and one connection at most.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from eventic_core.operations.look import Look
from eventic_core.runtime.process import process
from eventic_core.store.probe import Cause, probe

if TYPE_CHECKING:
    from eventic_core.runtime.worker import Worker
    from eventic_core.store.engine import Database

_KEPT_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 2.5
STUCK_SECONDS: Final = 60.0
"""A loop that has not turned for so long, while Postgres answers, will not turn again."""
_AWAY: Final = frozenset({"postgres_gone", "postgres_silent", "disk_full"})
_SILENT: Final = Cause("postgres_silent", "Postgres takes connections or statements and does not answer them.")
_NOT_CONNECTED: Final = Cause("not_connected", "No database is connected in this process: it starts, or has stopped.")
_NO_WORKER: Final = Cause("draining", "No worker runs in this process: it starts, drains or has stopped.")
_DRAIN_ASKED: Final = Cause("draining", "An operator has asked this worker to end: it takes no more work.")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; nothing in `causes` is well.

    Attributes:
        causes: Why not, each a word for programs and a sentence.
    """

    causes: tuple[Cause, ...]

    @property
    def is_well(self) -> bool:
        """Whether there is no cause against it."""
        return not self.causes

    @property
    def http_status(self) -> int:
        """200, or 503."""
        return 200 if self.is_well else 503

    def values(self) -> dict[str, Any]:
        """Give it as JSON data."""
        return {"ok": self.is_well, "causes": [cause._asdict() for cause in self.causes]}


def readiness(*, needs_worker: bool = False) -> Report:
    """Tell whether this process can work now; green again by itself.

    Red when Postgres is gone, silent, read-only or full, when its tables are missing or behind, and when the worker
    drains. Newer tables are well, so that old processes go on during an upgrade.

    Args:
        needs_worker: Whether the process is there to work, so that it is not ready without a launched worker.
    """
    worker = process().worker
    causes = []
    if needs_worker and worker is None:
        causes.append(_NO_WORKER)
    elif worker is not None and worker.drain_asked.is_set():
        causes.append(_DRAIN_ASKED)
    return Report((*causes, *_database_causes()))


def liveness() -> Report:
    """Tell whether the loops of this process's worker turn; well where there is no worker.

    A loop that waits for Postgres is well for as long as Postgres does not answer, and for a minute more.
    """
    return _watch.look()


class _Watch:
    """Keeps in mind since when a loop that stands still has no excuse."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._excused_at = 0.0

    def look(self) -> Report:
        late = [(name, at) for name, at in _turns(process().worker) if self._stands_still(at)]
        if late and any(cause.code in _AWAY for cause in _database_causes()):
            with self._lock:
                self._excused_at = time.monotonic()
            late = []
        return Report(
            tuple(
                Cause("stuck", f"The {name} has stood still for {time.monotonic() - at:.0f} s: restart this process.")
                for name, at in late
            )
        )

    def _stands_still(self, turned_at: float) -> bool:
        with self._lock:
            return time.monotonic() - max(turned_at, self._excused_at) > STUCK_SECONDS


_watch: Final = _Watch()


def _turns(worker: Worker | None) -> list[tuple[str, float]]:
    """Name the loops of a worker, and when each turned last."""
    if worker is None:
        return []
    turns = [("presence", worker.presence.turned_at), ("dispatcher", worker.executor.asked_at)]
    return [(name, at) for name, at in turns if at]  # those that have begun


def _database_causes() -> tuple[Cause, ...]:
    if not process().is_connected:
        return (_NOT_CONNECTED,)
    found = _look_at(os.getpid(), process().store.database).ask()
    return (_SILENT,) if found is None else tuple(found)


@lru_cache(maxsize=4)
def _look_at(_pid: int, database: Database) -> Look[list[Cause]]:
    """Give the look at a database; a forked child has its own."""
    return Look(partial(probe, database), kept_seconds=_KEPT_SECONDS, patience_seconds=_PATIENCE_SECONDS)
