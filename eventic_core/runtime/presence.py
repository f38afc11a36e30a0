"""That this process is there: it holds a slot, hears of work others enqueue, and takes over from the dead.

A slot's lock is free when its holder is dead, or cut off: Postgres itself says so, no clock is compared. The late
writes of one that was only cut off are refused by the owner check.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from eventic_core.errors import StoreUnavailable
from eventic_core.store.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.store import PostgresStore

_log = logging.getLogger("eventic")

TAKE_OVER_SECONDS = 5.0
"""Between looks for dead executors; a lock must be found free twice, so that a reconnect is not taken for a death."""
_LISTEN_SECONDS = 1.0


class Presence:
    """A thread that holds the slot.

    Args:
        store: Where it is.
        notified: Called when another process has enqueued work.
        renamed: Called with the new slot, if another process took the old one while the connection was lost.
    """

    def __init__(self, store: PostgresStore, notified: Callable[[], object], renamed: Callable[[str], object]) -> None:
        self._store = store
        self._slot = Slot(store.database)
        self._notified = notified
        self._renamed = renamed
        self._name = ""
        self._stopping = threading.Event()
        self._suspects: set[str] = set()
        self._thread = threading.Thread(target=self._loop, name="eventic-presence", daemon=True)

    def start(self) -> str:
        """Take the first free slot and begin; gives its name, the executor id."""
        self._name = self._slot.take()
        self._thread.start()
        return self._name

    def stop(self) -> None:
        """Give the slot up."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._slot.give_up()

    def _loop(self) -> None:
        looked_at = time.monotonic()
        while not self._stopping.is_set():
            try:
                notice = self._slot.wait(_LISTEN_SECONDS)
                if self._slot.name != self._name:
                    self._renamed(self._slot.name)
                    self._name = self._slot.name
                if notice is not None:
                    self._notified()
                if time.monotonic() - looked_at > TAKE_OVER_SECONDS * random.uniform(0.8, 1.2):  # noqa: S311 - jitter
                    looked_at = time.monotonic()
                    self._take_over()
            except StoreUnavailable as error:
                _log.warning("%s waits for Postgres: %s", self._slot.name, error, extra={"action": "wait"})
                self._stopping.wait(random.uniform(0.2, 1.0))  # noqa: S311 - jitter
            except Exception:  # noqa: BLE001 - it must live as long as the process
                _log.exception("%s", self._slot.name, extra={"action": "presence_failed"})
                self._stopping.wait(1.0)

    def _take_over(self) -> None:
        found = [executor for executor in self._store.work.executors() if executor != self._slot.name]
        dead = set(self._slot.free(found))
        certain, self._suspects = sorted(dead & self._suspects), dead
        runs = self._slot.take_over(certain, self._store.work) if certain else []
        if runs:
            extra = {"action": "take_over", "runs": runs}
            _log.warning("took %s runs over from %s", len(runs), ", ".join(certain), extra=extra)
            self._notified()
