"""Taking over: the work of workers that died, hang or are cut off is made ready again, by one at a time.

Who is dead: its slot's lock is free, which Postgres sees to when a process ends. Who hangs or is cut off: its beat is
late by the server's clock, and stays the same from one look to the next; its sessions are ended, so that nothing stays
locked. Either way its late writes are refused by the owner check. A look begins anew from what the tables say, so one
that is interrupted is made good by the next, of whomever.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from eventic_core.runtime import counts

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store import PostgresStore
    from eventic_core.store.slots import Slot
    from eventic_core.store.workers import Stalled

_log = logging.getLogger("eventic")

STALLED_SECONDS = 20.0
"""Without a beat: long enough for a busy process, short enough that its work goes on within half a minute."""
_SUSPECT_SHARE = 0.6
"""Of it, from which on a beat is remembered: so early that the look before the one that judges has seen it."""


class TakeOver:
    """Looks for workers whose work somebody else must do.

    Args:
        store: Where the work is.
        slot: Of this process; used by the thread that looks.
    """

    def __init__(self, store: PostgresStore, slot: Slot) -> None:
        self._store = store
        self._slot = slot
        self._suspects: frozenset[str] = frozenset()
        self._late: frozenset[tuple[UUID, datetime]] = frozenset()
        self._inherited: list[str] = []

    def inherit(self) -> None:
        """Note what stands under this process's slot before it has any work: it is of who had the slot before.

        Nobody else would find out that that one is dead, for the slot is not free; and what its last session still
        holds locked cannot be taken over at once.
        """
        self._inherited = self._store.work.owners(self._slot.name, self._slot)

    def look(self, own: UUID, *, judges_beats: bool) -> list[str]:
        """Take over from all that are dead or hang; gives the ids of the runs that are ready again.

        A lock must be found free twice, so that a reconnect is not taken for a death.

        Args:
            own: This worker.
            judges_beats: Whether late beats count: not while this process itself may have been cut off.
        """
        runs = self._of_earlier() + self._of_dead()
        if judges_beats:
            for worker in self._stalled(own):
                runs += self._of_stalled(worker)
        return runs

    def _of_earlier(self) -> list[str]:
        if not self._inherited:
            return []
        own = self._slot.name
        with self._slot.transaction():
            found = self._store.work.take_over([own], self._slot, owners=self._inherited)
            self._store.workers.note_recovered(self._slot, [executor for _run, executor in found])
        still = self._store.work.owners(own, self._slot)
        self._inherited = [owner for owner in self._inherited if owner in still]
        return self._told([own], [run for run, _executor in found], "gone: this process has its slot")

    def _of_dead(self) -> list[str]:
        held = {*self._store.work.executors(self._slot), *self._store.workers.live_slots(self._slot)}
        dead = frozenset(self._slot.free(sorted(held - {self._slot.name})))
        certain, self._suspects = sorted(dead & self._suspects), dead
        if not certain:
            return []
        with self._slot.holding(certain) as slots, self._slot.transaction():
            self._store.workers.note_dead(self._slot, slots)
            found = self._store.work.take_over(slots, self._slot)
            self._store.workers.note_recovered(self._slot, [executor for _run, executor in found])
        return self._told(slots, [run for run, _executor in found], "dead")

    def _stalled(self, own: UUID) -> list[Stalled]:
        """Find who has not beaten for too long, nor since the look before: a clock that jumps makes all seem late."""
        late = self._store.workers.stalled(self._slot, own, STALLED_SECONDS * _SUSPECT_SHARE)
        seen, self._late = self._late, frozenset((worker.id, worker.beat_at) for worker in late)
        return [
            worker
            for worker in late
            if worker.is_lost or (worker.late_seconds > STALLED_SECONDS and (worker.id, worker.beat_at) in seen)
        ]

    def _of_stalled(self, worker: Stalled) -> list[str]:
        if not self._store.workers.end_sessions(self._slot, worker):
            _log.warning("the sessions of %s may not be ended by this role", worker.slot, extra={"action": "sessions"})
        with self._slot.transaction():
            if not self._store.workers.lose(self._slot, worker, STALLED_SECONDS):
                return []
            found = self._store.work.take_over([worker.slot], self._slot)
            self._store.workers.note_recovered(self._slot, [executor for _run, executor in found])
        return self._told([worker.slot], [run for run, _executor in found], "not answering")

    @staticmethod
    def _told(slots: list[str], runs: list[str], why: str) -> list[str]:
        if runs:
            counts.TAKEN_OVER.add(by=len(runs))
            extra: Final = {"action": "take_over", "runs": runs}
            _log.warning("took %s runs over from %s, which is %s", len(runs), ", ".join(slots), why, extra=extra)
        return runs
