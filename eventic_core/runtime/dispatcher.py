"""The one dispatcher of a process: finds which of its queues have work, claims some, and hands it to the executor.

DBOS spends a thread and nine statements a poll on every queue. Here one statement asks for all of them, a few times a
second, and at once after an enqueue of this process or a notification from another.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventic_core.runtime.adapter import Claims
    from eventic_core.runtime.executor import Executor
    from eventic_core.store import PostgresStore
    from eventic_core.store.work import QueueRow

_log = logging.getLogger("eventic")

POLL_SECONDS = 0.25
"""Between questions when nobody says there is work: the most that work enqueued silently waits."""
BUSY_POLL_SECONDS = 0.02
_BUSY_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class Dispatcher:
    """A thread that claims work for one process."""

    def __init__(
        self,
        store: PostgresStore,
        executor: Executor,
        queues: Callable[[], Iterable[QueueRow]],
        claims: Claims,
    ) -> None:
        self._store = store
        self._executor = executor
        self._queues = queues
        self._claims = claims
        self._wake = threading.Event()
        self._hinted: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._busy_until = 0.0
        self._thread = threading.Thread(target=self._loop, name="eventic-dispatcher", daemon=True)
        executor.done = lambda _queue: self.wake()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self, queues: Iterable[str] = ()) -> None:
        """Look for work now; in these queues there is some, so nobody needs to ask."""
        with self._lock:
            self._hinted.update(queues)
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; returns when the last claim is handed over."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _loop(self) -> None:
        pause = 0.0
        while not self._stopping:
            self._wake.wait(pause or self._interval())
            if pause:
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            self._wake.clear()
            try:
                while self._poll() and not self._stopping:
                    pass
                pause = 0.0
            except Exception as error:  # noqa: BLE001 - it must live through a restart of the server
                if not pause:
                    _log.warning("no work is claimed until Postgres answers: %r", error, extra={"action": "wait"})
                pause = min(max(pause * 2, 0.2), _LONGEST_PAUSE_SECONDS)

    def _interval(self) -> float:
        """Ask more often just after there was work: its notifications are not sent for every commit."""
        return BUSY_POLL_SECONDS if time.monotonic() < self._busy_until else POLL_SECONDS

    def _poll(self) -> bool:
        """Claim what there is room for; tells whether there may be more."""
        now = time.monotonic()
        with self._lock:
            hinted, self._hinted = self._hinted, set()
        every = [self._executor.load(row) for row in self._queues()]
        # A claim that found nothing is not repeated for a while, but there is something new where somebody hints at it.
        loads = {
            load.queue.name: load
            for load in every
            if load.wanted > 0 and (load.blocked_until <= now or load.queue.name in hinted)
        }
        if not loads:
            return False
        # What an unheard claim has claimed is ready no more, and nobody but us would ask for it.
        hinted = (hinted | self._claims.doubtful.keys()) & loads.keys()
        ready = list(hinted) or self._store.work.ready(loads)
        random.shuffle(ready)
        more = False
        for name in ready:
            load = loads[name]
            wanted, ended = load.wanted, load.ended
            claimed = self._claims.claim(load.queue, wanted)
            self._executor.submit(load, claimed, ended_before=ended)
            if claimed:
                self._busy_until = time.monotonic() + _BUSY_SECONDS
                more = more or len(claimed) >= wanted
        return more or bool(hinted)  # what was not hinted at has its turn now
