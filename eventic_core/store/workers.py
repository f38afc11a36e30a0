"""The workers as the database knows them: who is alive by its clock, what each does, and what operators want of them.

Owns table `eventic.workers` and the queues that are paused. Who has which slot is `slots`'; what a process does about
any of it is `runtime.presence`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import errors as pg

from eventic_core.store.slots import SPACE
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store.engine import Database
    from eventic_core.store.slots import Slot
    from eventic_core.store.transaction import PostgresTransaction

LATE_SECONDS = 6.0
"""From here on a list shows a worker as late: it has missed two beats."""

_BEGIN = statement("worker_begin")
_ENDED = statement("worker_ended")
_BEAT = statement("worker_beat")
_STALLED = statement("worker_stalled")
_LOST = statement("worker_lost")
_RECOVERED = statement("worker_recovered")
_SESSIONS = statement("worker_sessions")
_LIVE_SLOTS = statement("worker_live_slots")
_WORKERS = statement("workers")
_ASK_DRAIN = statement("ask_drain")
_PAUSE = statement("pause_queue")
_RESUME = statement("resume_queue")
_PAUSED = statement("paused_queues")


class Process(NamedTuple):
    """What does not change of a worker: its application, versions and place."""

    application: str
    app_version: str
    code_version: str
    machine: str
    pid: int


class Load(NamedTuple):
    """What a worker does at the moment; `queues` are those it serves, `claimed` is work it has not begun."""

    queues: Sequence[str]
    running: int
    claimed: int
    is_draining: bool


class Wishes(NamedTuple):
    """What operators want of a worker."""

    drain: bool
    paused: frozenset[str]


class Stalled(NamedTuple):
    """A worker whose beat is late by the server's clock, or that is lost; `token` is in the names of its sessions."""

    id: UUID
    slot: str
    token: str
    beat_at: datetime
    late_seconds: float
    is_lost: bool


class WorkerRow(NamedTuple):
    """A worker, as a list shows it; `state` is alive, late, draining, stopped or lost, moments are aware UTC.

    Attributes:
        is_drain_asked: Whether an operator has asked it to end.
        recovered: Runs that were taken over from it.
        beat_seconds: Since its last beat, by the server's clock.
    """

    id: UUID
    slot: str
    application: str
    app_version: str
    code_version: str
    machine: str
    pid: int
    queues: list[str]
    running: int
    claimed: int
    state: str
    is_drain_asked: bool
    recovered: int
    started_at: datetime
    beat_at: datetime
    beat_seconds: float


class PausedQueue(NamedTuple):
    """A queue of which nothing is claimed."""

    name: str
    paused_at: datetime
    paused_by: str | None
    reason: str | None


class WorkerTable:
    """The workers of one database. What workers do goes through their slots, connections that nobody else uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- what a worker says of itself

    def begin(self, slot: Slot, worker_id: UUID, process: Process) -> None:
        """Note that a process works under a slot that it holds; whoever had the slot before has lost it."""
        slot.run(_ENDED, ("lost", [slot.name], self._database.token))
        slot.run(_BEGIN, (worker_id, slot.name, self._database.token, *process, []))

    def beat(self, slot: Slot, worker_id: UUID, load: Load) -> Wishes | None:
        """Say that a worker is alive; `None` if it counts as lost, and its runs were taken over."""
        state = "draining" if load.is_draining else "alive"
        rows = slot.run(_BEAT, (list(load.queues), load.running, load.claimed, state, worker_id))
        return Wishes(rows[0][0], frozenset(rows[0][1])) if rows else None

    def end(self, slot: Slot) -> None:
        """Note that the process works no more."""
        slot.run(_ENDED, ("stopped", [], self._database.token))

    # -- the dead and the lost

    @staticmethod
    def live_slots(slot: Slot) -> list[str]:
        """Name the slots that count as held."""
        return [name for (name,) in slot.run(_LIVE_SLOTS, ())]

    @staticmethod
    def stalled(slot: Slot, own: UUID, seconds: float) -> list[Stalled]:
        """Name the workers, but for the caller's own, that have not beaten for so long, and lost ones who hold on."""
        return [Stalled._make(row) for row in slot.run(_STALLED, {"own": own, "seconds": seconds})]

    @staticmethod
    def end_sessions(slot: Slot, worker: Stalled) -> bool:
        """End the sessions of a worker that hangs; false if this role may not."""
        try:
            slot.run(_SESSIONS, (worker.token,))
        except pg.InsufficientPrivilege:
            return False
        return True

    @staticmethod
    def lose(slot: Slot, worker: Stalled, seconds: float) -> bool:
        """Count a worker as lost, and tell whether its work is free; locks its row until the transaction ends.

        Not if the worker has beaten meanwhile, or another process has its slot: one of a release that does not beat.
        """
        rows = slot.run(_LOST, {"id": worker.id, "seconds": seconds, "space": SPACE})
        return bool(rows) and not rows[0][0]

    @staticmethod
    def note_dead(slot: Slot, slots: Sequence[str]) -> None:
        """Count whoever had these slots, whose locks the caller holds, as lost."""
        slot.run(_ENDED, ("lost", list(slots), ""))

    @staticmethod
    def note_recovered(slot: Slot, slots: Sequence[str]) -> None:
        """Count runs taken over, given the slot that each was in the hands of."""
        if slots:
            names = sorted(set(slots))
            slot.run(_RECOVERED, (names, [slots.count(name) for name in names]))

    # -- what operators see and want

    def all(self, *, ended: bool, limit: int) -> list[WorkerRow]:
        """List the workers: those alive, and on request those that ended within a week."""
        parameters = {"ended": ended, "limit": limit, "late": LATE_SECONDS}
        return [WorkerRow._make(row) for row in self._database.fetch(_WORKERS, parameters)]

    def ask_drain(self, slots: Sequence[str], tx: PostgresTransaction) -> list[str]:
        """Ask workers to end; gives the slots of those that will hear it."""
        return [slot for (slot,) in tx.fetch(_ASK_DRAIN, (list(slots),))]

    def pause(self, queue: str, *, by: str | None, reason: str | None, tx: PostgresTransaction) -> bool:
        """Pause a queue; false if it is paused already."""
        return bool(tx.fetch(_PAUSE, (queue, by, reason)))

    def resume(self, queue: str, tx: PostgresTransaction) -> bool:
        """Let a queue's work be claimed again; false if it was not paused."""
        return bool(tx.fetch(_RESUME, (queue,)))

    def paused(self) -> dict[str, PausedQueue]:
        """Read the paused queues, by name."""
        return {row[0]: PausedQueue._make(row) for row in self._database.fetch(_PAUSED, ())}
