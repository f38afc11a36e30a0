"""Outcomes of runs that have nothing else to commit: as many as there are share one statement.

While one statement is on its way the next outcomes gather, so the busier the worker the fewer the commits.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from eventic_core.errors import RemoteError, StoreUnavailable
from eventic_core.runtime.calls import error_text

if TYPE_CHECKING:
    from eventic_core.store import PostgresStore
    from eventic_core.store.work import Outcome

_log = logging.getLogger("eventic")
_MOST = 500


class Outcomes:
    """Stores outcomes from a thread of its own, in the order they are added; started by the first."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._waiting: list[Outcome] = []
        self._batch: list[Outcome] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def add(self, outcome: Outcome) -> None:
        """Store an outcome soon; if the process dies before, the run is done again."""
        with self._changed:
            self._waiting.append(outcome)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="eventic-outcomes", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._stopping:
                        return
                    self._changed.wait()
                self._batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            self._store_patiently(self._batch)
            with self._changed:
                self._batch = []
                self._changed.notify_all()

    def _store_patiently(self, batch: list[Outcome]) -> None:
        while True:
            try:
                self._store.work.complete_many(batch)
            except StoreUnavailable as error:
                _log.warning("%s outcomes wait for Postgres: %s", len(batch), error, extra={"action": "wait"})
                if self._stopping:
                    return  # the runs are done again by whoever takes over
                time.sleep(1)
            except Exception as error:  # noqa: BLE001 - the thread must live, and every run must end
                if len(batch) == 1:
                    self._store_error(batch[0], error)
                    return
                for outcome in batch:  # one of them is what Postgres refuses: the others must not go with it
                    self._store_patiently([outcome])
                return
            else:
                return

    def _store_error(self, outcome: Outcome, error: Exception) -> None:
        """Let a run end with the error for which its outcome could not be stored."""
        _log.error("run %s: its outcome is lost", outcome.run_id, exc_info=error, extra={"action": "outcome_lost"})
        lost = RemoteError(f"The run's outcome could not be stored: {error!r:.200}", "worker")
        instead = outcome._replace(status="ERROR", output=None, error=error_text(lost))
        if instead != outcome:  # else even that was refused, and the run is done again after a restart
            self._store_patiently([instead])

    def has(self, run_id: str, owner: str) -> bool:
        """Tell whether the outcome of a run is still to be stored."""
        with self._changed:
            return any((one.run_id, one.owner) == (run_id, owner) for one in (*self._batch, *self._waiting))

    def flush(self) -> None:
        """Wait until what is there is stored."""
        with self._changed:
            while self._waiting or self._batch:
                self._changed.wait()

    def stop(self) -> None:
        """Store what is there, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=10)
