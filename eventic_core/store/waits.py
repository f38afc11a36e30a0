"""Work that waits for runs to end: it holds no thread, and the transaction that ends a run wakes it.

The kinds of runs and of work are the callers'; this is who waits for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.records.port import OwnershipLost
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_ADD = statement("add_waits")
_HOLD = statement("hold_waits")
_PARK = statement("park_waiting")
_END = statement("end_waits")
_FORGET = statement("forget_wait")
_WAKE = statement("wake_waiting")
_LOOK_AGAIN_MS = 60_000
"""After this long work that waits looks for itself, should nobody have woken it."""


class WaitTable:
    """Who waits for what on one database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def add(self, work_id: str, run_ids: Sequence[UUID], tx: PostgresTransaction) -> None:
        """Have work wait for runs, from when the transaction commits on.

        One that has ended already wakes nobody: look at them after the commit, before `park`, and `forget` it.
        """
        tx.fetch(_ADD, (work_id, list(run_ids)))

    def park(self, work_id: str, owner: str, run_ids: Sequence[UUID]) -> bool:
        """Give claimed work back until one of the runs has ended; false if it is not to wait, for one has.

        Raises:
            OwnershipLost: It is not this execution's any more.
        """
        with self._store.transaction() as tx:
            if len(tx.fetch(_HOLD, (list(run_ids), work_id))) < len(set(run_ids)):
                return False
            if not tx.fetch(_PARK, (_LOOK_AGAIN_MS, work_id, owner)):
                raise OwnershipLost(work_id)
        return True

    def forget(self, work_id: str, run_id: UUID) -> None:
        """Have work wait for a run no more, of which nobody may have told it that it had ended."""
        self._store.database.fetch(_FORGET, (run_id, work_id))

    def ended(self, run_id: UUID, tx: PostgresTransaction) -> None:
        """A run has ended: what waits for it goes on when the transaction commits."""
        waiting = [work_id for (work_id,) in tx.fetch(_END, (run_id,))]
        if waiting:
            tx.fetch(_WAKE, (waiting,))
