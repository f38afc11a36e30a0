"""The executions of runs' items, set-based: planned, made for items that never begin, and moved by the thousand.

What came of an attempt is an append. What all of it means is decided in `automation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from eventic_core.errors import Conflict
from eventic_core.records.port import OwnershipLost
from eventic_core.store.counters import CounterTable
from eventic_core.store.groups import GroupTable
from eventic_core.store.handlers import GENERATION, handle_work
from eventic_core.store.moves import ITEM_EXECUTION
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.records.stamp import Origin
    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_LOOK_AGAIN_MS = 60_000
"""After this long a run that waits looks for itself, should nobody have woken it."""
RUNS_QUEUE = "eventic_runs"
_MOVED = 5000
_LAST = 2**63 - 1

_COUNTING = statement("part_counting", moved=statement("part_moved_documents").rstrip()).rstrip()
_NAMED_GENERATION = GENERATION.replace("%s", "%(generation)s")
_EXECUTION_ID = statement("part_execution_id").rstrip()
_PLAN_ITEMS = statement("plan_items")
_LOCK_ITEMS = statement("lock_items")
_PEND_ITEMS = statement("pend_items", execution_id=_EXECUTION_ID, generation=_NAMED_GENERATION)
_MOVE_ITEMS = statement("move_items", generation=_NAMED_GENERATION, counting=_COUNTING)
_PLANNED = statement("planned")
_UNFINISHED_NUMBERS = statement("unfinished_numbers")
_OWNED = statement("owned")
_LOCK_COUNTERS_ALONE = statement("lock_counters").replace("{strength}", "no key update")
_PARK_RUN = statement("park_run")


class Part(NamedTuple):
    """A batch's part in a run.

    Attributes:
        before: How many items the run has in parts before this one.
    """

    run_id: UUID
    batch_execution_id: UUID
    batch_id: UUID
    before: int


class Move(NamedTuple):
    """Which executions of a run are moved, and how.

    Attributes:
        statuses: Those they have now.
        patch: Values that change.
        call: The named move, if it is one.
        numbers: Only these.
        error_type: Only those whose error was of this class.
        message: Only those whose error message holds this text.
        again: Attempts they get beyond those they had; `None` leaves the maximum alone.
    """

    statuses: Sequence[str]
    patch: dict[str, Any]
    reason: str
    call: str | None = None
    numbers: Sequence[int] | None = None
    error_type: str | None = None
    message: str | None = None
    again: int | None = None


class ExecutionTable:
    """The items' executions of runs on one database, with the tables of counters and groups beside them."""

    def __init__(self, store: PostgresStore) -> None:
        self.counters = CounterTable(store.database)
        self.groups = GroupTable(store)
        self._store = store

    # -- planning

    def owned(self, run_id: str, owner: str, tx: PostgresTransaction) -> None:
        """Hold a run to its owner until the transaction ends.

        Raises:
            OwnershipLost: It is somebody else's.
        """
        if not tx.fetch(_OWNED, (run_id, owner)):
            raise OwnershipLost(run_id)

    def note_planned(
        self, run_id: UUID, batch_execution_id: UUID, *, before: int, planned: int, to: int, tx: PostgresTransaction
    ) -> None:
        """Note how far planning is.

        Raises:
            Conflict: Somebody else plans.
        """
        parameters = {
            "run": run_id,
            "batch_execution": batch_execution_id,
            "before": before,
            "planned": planned,
            "to": to,
        }
        if not tx.fetch(_PLANNED, parameters):
            message = f"Run {run_id} is being planned by another worker."
            raise Conflict(message)

    def plan_items(self, batch_id: UUID, *, after: int, count: int) -> list[int]:
        """Read the next sequence numbers of a batch's items, in order."""
        parameters = {"batch": str(batch_id), "after": after, "count": count}
        return [int(number) for (number,) in self._store.database.fetch(_PLAN_ITEMS, parameters)]

    def pend_items(
        self,
        part: Part,
        tx: PostgresTransaction,
        *,
        to: int | None,
        total: int,
        max_attempts: int | None,
        origin: Origin,
    ) -> None:
        """Make pending executions for items of a part that have not begun, because the run ends without them.

        They are counted as pending already, since the run started.

        Args:
            part: The part.
            tx: The transaction that ends the run.
            to: The last sequence number; `None` is the batch's last.
            total: How many items of the part have numbers in the run, at most.
            max_attempts: Of each.
            origin: Who ends it, and the workflow of its attempt.
        """
        handlers = self._store.handlers
        while True:
            parameters = {
                "run": str(part.run_id),
                "batch_execution": str(part.batch_execution_id),
                "batch": str(part.batch_id),
                "before": part.before,
                "total": total,
                "to": _LAST if to is None else to,
                "count": _MOVED,
                "max_attempts": max_attempts,
                "workflow_id": origin.workflow_id,
                "actor": origin.actor,
                "correlation_id": origin.correlation_id,
                "generation": handlers.generation,
                "listed": bool(handlers.of_class(ITEM_EXECUTION)),
            }
            found, made, ids = tx.fetch(_PEND_ITEMS, parameters)[0]
            if ids:
                self._store.enqueue(handlers.bulk_follow_ups(ITEM_EXECUTION, ids), tx)
            if not found or (not made and not handlers.refresh()):
                return

    def unfinished_numbers(self, run_id: UUID, *, after: int, count: int) -> list[int]:
        """Read the numbers of a run's items that are still to be done, after one, in order."""
        parameters = {"run": str(run_id), "after": after, "count": count}
        return [int(number) for (number,) in self._store.database.fetch(_UNFINISHED_NUMBERS, parameters)]

    def lock_items(self, run_id: UUID, tx: PostgresTransaction) -> None:
        """Hold the executions of a run that are still to be done, so that nobody moves them meanwhile."""
        tx.fetch(_LOCK_ITEMS, (str(run_id),))

    def move_items(self, run_id: UUID, move: Move, tx: PostgresTransaction, *, workflow_id: str, origin: Origin) -> int:
        """Move many executions of a run in the same way, a version each; gives how many."""
        moved = 0
        while True:
            count = self._move_some(run_id, move, tx, workflow_id, origin)
            moved += count
            if count < _MOVED:
                return moved

    def _move_some(self, run_id: UUID, move: Move, tx: PostgresTransaction, workflow_id: str, origin: Origin) -> int:
        handlers = self._store.handlers
        parameters = {
            "run": str(run_id),
            "statuses": list(move.statuses),
            "numbers": None if move.numbers is None else list(move.numbers),
            "error_type": move.error_type,
            "message": move.message,
            "patch": to_json(move.patch).decode(),
            "again": move.again,
            "reason": move.reason,
            "call": move.call,
            "count": _MOVED,
            "workflow_id": workflow_id,
            "actor": origin.actor,
            "correlation_id": origin.correlation_id,
        }
        while True:
            subscribed = handlers.of_class(ITEM_EXECUTION)
            more = {"generation": handlers.generation, "listed": bool(subscribed)}
            count, ids, versions = tx.fetch(_MOVE_ITEMS, {**parameters, **more})[0]
            if count or not handlers.refresh():
                break
        names = {entry.handler for entry in handlers.of_class(ITEM_EXECUTION) if entry.kind == "update"}
        work = [
            handle_work(name, ITEM_EXECUTION, record, version)
            for name in sorted(names)
            for record, version in zip(ids or (), versions or (), strict=True)
        ]
        if work:
            self._store.enqueue(work, tx)
        return int(count)

    def park_run(self, run_id: UUID, workflow_id: str, owner: str) -> bool:
        """Let a run wait for its items; false if it has not to."""
        parameters = {"run": run_id, "id": workflow_id, "owner": owner, "again": _LOOK_AGAIN_MS}
        with self._store.transaction() as tx:
            tx.fetch(_LOCK_COUNTERS_ALONE, (run_id,))  # alone: no group ends between the question and the wait
            return bool(tx.fetch(_PARK_RUN, parameters))
