"""Runs over batches, as tables: items' executions planned and moved set-based, counters, and groups that wait.

Owns the statements of automations that are not appends. What they mean is decided in `automation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from eventic_core.errors import Conflict
from eventic_core.records.port import OwnershipLost
from eventic_core.store.handlers import GENERATION, handle_work
from eventic_core.store.moves import ITEM_EXECUTION
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from eventic_core.records.stamp import Origin
    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

WHOLE_RUN = UUID(int=0)
"""Where a batch execution's id stands in the counters of the run as a whole."""
NEVER_MS = 253402300799000
"""When what waits for a change, not for a time, is due: the end of the year 9999."""
_LOOK_AGAIN_MS = 60_000
"""After this long a run that waits looks for itself, should nobody have woken it."""
RUNS_QUEUE = "eventic_runs"
_MOVED = 5000
_LAST = 2**63 - 1

_COUNTING = statement("part_counting", moved=statement("part_moved_documents").rstrip()).rstrip()
_NAMED_GENERATION = GENERATION.replace("%s", "%(generation)s")
_EXECUTION_ID = statement("part_execution_id").rstrip()
_PLAN_ITEMS = statement("plan_items")
_BATCH_ITEMS = statement("batch_items")
_BEGUN_ITEMS = statement("begun_items")
_LOCK_ITEMS = statement("lock_items")
_COUNT_BEGUN = statement("count_begun")
_PEND_ITEMS = statement("pend_items", execution_id=_EXECUTION_ID, generation=_NAMED_GENERATION)
_MOVE_ITEMS = statement("move_items", generation=_NAMED_GENERATION, counting=_COUNTING)
_GROUP_ITEMS = statement("group_items")
_OPEN_COUNTERS = statement("open_counters")
_COUNTERS = statement("counters")
_RUN_STATE = statement("run_state")
_GROUP_BEGIN = statement("group_begin")
_SET_RUN_STATE = statement("set_run_state")
_PLANNED = statement("planned")
_UNFINISHED_NUMBERS = statement("unfinished_numbers")
_OWNED = statement("owned")
_LOCK_COUNTERS = statement("lock_counters").replace("{strength}", "share")
_LOCK_COUNTERS_ALONE = statement("lock_counters").replace("{strength}", "no key update")
_PARK_GROUP = statement("park_group")
_RELEASE_GROUPS = statement("release_groups")
_DROP_GROUPS = statement("drop_groups")
_COMPLETE_GROUP = statement("complete_group")
_PARK_RUN = statement("park_run")
_RESERVE_RATE = statement("reserve_rate")
_COUNT_ITEMS = statement("count_items")
_FAILURES = statement("run_failures")
_LOWER_TOTAL = statement("lower_total")
_TOLERATE = statement("tolerate")


class Counters(NamedTuple):
    """How far a run, or a batch's part in it, is.

    Attributes:
        batch_execution_id: `WHOLE_RUN` for the run.
        state: `running`, `paused`, `stopped` (more failed than is tolerated) or `ended`.
        tolerated: How many may fail; `None` is any number.
        planned: How many items are in groups.
        planned_to: The last sequence number of those.
        read_at: By the database's clock.
    """

    batch_execution_id: UUID
    state: str
    tolerated: int | None
    planned: int
    planned_to: int
    total: int
    pending: int
    processing: int
    retrying: int
    completed: int
    failed: int
    cancelled: int
    skipped: int
    started_at: datetime
    changed_at: datetime
    read_at: datetime

    @property
    def unfinished(self) -> int:
        """How many are still to be done."""
        return self.pending + self.processing + self.retrying


class GroupItem(NamedTuple):
    """An item of a group that has an execution: the current version of that, and the item's payload."""

    id: UUID
    version: int
    data: str
    payload: Any


class BatchItem(NamedTuple):
    """An item of a batch, with its payload as JSON text."""

    id: UUID
    sequence_number: int
    payload: str


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
    """Runs, executions and groups on one database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    # -- counters

    def count_items(self, batch_ids: Sequence[UUID], tx: PostgresTransaction) -> dict[UUID, int]:
        """Count the items of batches; once for each run, when it starts, in whose transaction they may be loaded."""
        rows = tx.fetch(_COUNT_ITEMS, ([str(batch) for batch in batch_ids],))
        return {UUID(batch): count for batch, count in rows}

    def open(
        self,
        run_id: UUID,
        workflow_id: str,
        totals: dict[UUID, int],
        tx: PostgresTransaction,
        *,
        tolerated: int | None,
        by_class: dict[str, int],
    ) -> None:
        """Make the counters of a run, with all items pending.

        Args:
            run_id: The run.
            workflow_id: Of its first attempt.
            totals: Items of each batch execution.
            tx: The transaction that makes the run.
            tolerated: Failed items, of whatever class; `None` is any number.
            by_class: Failed items by the class of their error.
        """
        rows = {WHOLE_RUN: sum(totals.values()), **totals}
        tx.fetch(_OPEN_COUNTERS, (run_id, workflow_id, tolerated, list(rows), list(rows.values())))
        self.tolerate(run_id, by_class, tx)

    def tolerate(self, run_id: UUID, by_class: dict[str, int], tx: PostgresTransaction) -> None:
        """Say how many items may fail with errors of some classes; others may without bound."""
        tx.fetch(_TOLERATE, (list(by_class), list(by_class.values()), run_id))

    def counters(self, run_id: UUID, tx: PostgresTransaction | None = None) -> list[Counters]:
        """Read a run's counters: its own first, then its batch executions'; none if nothing executes it."""
        return [Counters._make(row) for row in (tx or self._store.database).fetch(_COUNTERS, (run_id,))]

    def failures(self, run_id: UUID, tx: PostgresTransaction | None = None) -> dict[str, int]:
        """Read how many items failed, by the class of their error, the most first."""
        rows = (tx or self._store.database).fetch(_FAILURES, (run_id,))
        return {name: int(count) for name, count, _tolerated in rows if count}

    def is_over(self, run_id: UUID, tx: PostgresTransaction) -> bool:
        """Tell whether more items failed with errors of some class than are tolerated of it."""
        rows = tx.fetch(_FAILURES, (run_id,))
        return any(tolerated is not None and count > tolerated for _name, count, tolerated in rows)

    def lower_total(self, run_id: UUID, batch_execution_id: UUID, by: int, tx: PostgresTransaction) -> None:
        """Note that a batch has fewer items than were counted."""
        tx.fetch(_LOWER_TOTAL, (by, by, run_id, [WHOLE_RUN, batch_execution_id]))

    def state(self, run_id: UUID) -> str:
        """Read whether a run goes on; `ended` if nothing is known of it."""
        rows = self._store.database.fetch(_RUN_STATE, (run_id,))
        return str(rows[0][0]) if rows else "ended"

    def begin_group(self, run_id: UUID, group_id: str) -> tuple[str, int]:
        """Read whether a group's run goes on, as `state`, and the last step that the group has recorded, 0 for none."""
        state, last = self._store.database.fetch(_GROUP_BEGIN, (run_id, group_id))[0]
        return str(state or "ended"), int(last or 0)

    def set_state(
        self,
        run_id: UUID,
        state: str,
        *,
        before: Iterable[str],
        tx: PostgresTransaction,
        workflow_id: str | None = None,
        tolerated: tuple[int | None] | None = None,
    ) -> bool:
        """Change a run's state if it is one of `before`; tells whether it was.

        Args:
            run_id: The run.
            state: What it becomes.
            before: What it may be.
            tx: The transaction that changes the run's record.
            workflow_id: Of a new attempt, which plans again.
            tolerated: A new number of failed items, in a tuple because `None` is any number.
        """
        parameters = {
            "run": run_id,
            "state": state,
            "before": list(before),
            "workflow_id": workflow_id,
            "resolve": tolerated is not None,
            "tolerated": tolerated[0] if tolerated else None,
        }
        return bool(tx.fetch(_SET_RUN_STATE, parameters))

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

    # -- groups

    def group(self, run_id: UUID, first: int, last: int, only: Sequence[int] | None) -> list[GroupItem]:
        """Read the items of a group that have executions and are still to be done."""
        parameters = {"run": str(run_id), "first": first, "last": last, "only": None if only is None else list(only)}
        return [GroupItem._make(row) for row in self._store.database.fetch(_GROUP_ITEMS, parameters)]

    def batch_items(self, batch_id: UUID, first: int, last: int) -> list[BatchItem]:
        """Read the items of a batch with these sequence numbers, in order."""
        rows = self._store.database.fetch(_BATCH_ITEMS, (str(batch_id), first, last))
        return [BatchItem._make(row) for row in rows]

    def begun(self, ids: Sequence[UUID]) -> set[UUID]:
        """Tell which of these executions there are."""
        return {row[0] for row in self._store.database.fetch(_BEGUN_ITEMS, (list(ids),))}

    def complete_group(
        self, run_id: UUID, group_id: str, owner: str, *, gone: tuple[UUID, range] | None = None
    ) -> None:
        """End a group's work.

        Args:
            run_id: The run.
            group_id: The group.
            owner: The token of the claim.
            gone: If items of it may have been deleted before they began, their part and the numbers planned for them:
                the run has so many fewer.

        Raises:
            OwnershipLost: It is somebody else's.
        """
        with self._store.transaction() as tx:
            held = tx.fetch(_LOCK_COUNTERS_ALONE if gone else _LOCK_COUNTERS, (run_id,))
            if gone:
                part_id, numbers = gone
                parameters = {"run": str(run_id), "first": numbers.start, "last": numbers.stop - 1}
                (begun,) = tx.fetch(_COUNT_BEGUN, parameters)[0]
                if begun < len(numbers):
                    self.lower_total(run_id, part_id, len(numbers) - begun, tx)
            waiting = held[0][0] if held and held[0][1] == "stopped" else None
            if not tx.fetch(_COMPLETE_GROUP, {"id": group_id, "owner": owner, "waiting": waiting}):
                raise OwnershipLost(group_id)

    def park_group(self, run_id: UUID, group_id: str, owner: str) -> bool:
        """Let a group wait while its run is paused; false if it is not paused."""
        return bool(self._store.database.fetch(_PARK_GROUP, (run_id, NEVER_MS, group_id, owner)))

    def release_groups(self, workflow_id: str, tx: PostgresTransaction) -> int:
        """Let the groups of a run that was paused go on; gives how many waited."""
        return int(tx.fetch(_RELEASE_GROUPS, (workflow_id, NEVER_MS))[0][0])

    def drop_groups(self, workflow_id: str, tx: PostgresTransaction) -> None:
        """Let groups of a run that have not begun never begin."""
        tx.fetch(_DROP_GROUPS, (workflow_id,))

    def park_run(self, run_id: UUID, workflow_id: str, owner: str) -> bool:
        """Let a run wait for its items; false if it has not to."""
        parameters = {"run": run_id, "id": workflow_id, "owner": owner, "again": _LOOK_AGAIN_MS}
        with self._store.transaction() as tx:
            tx.fetch(_LOCK_COUNTERS_ALONE, (run_id,))  # alone: no group ends between the question and the wait
            return bool(tx.fetch(_PARK_RUN, parameters))

    def reserve(self, name: str, items: int, *, rate: tuple[int, float]) -> float:
        """Reserve a turn under a rate of all workers; gives the seconds to wait."""
        most, period = rate
        parameters = {"name": name, "seconds": items * period / most, "period": period}
        return float(self._store.database.run(_RESERVE_RATE, parameters)[0][0])
