"""Groups of items, each done by one worker: what they read, and how they wait and end.

What came of their items is written as versions, by `append`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.records.port import OwnershipLost
from eventic_core.store.counters import CounterTable
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

NEVER_MS = 253402300799000
"""When what waits for a change, not for a time, is due: the end of the year 9999."""

_BATCH_ITEMS = statement("batch_items")
_BEGUN_ITEMS = statement("begun_items")
_COUNT_BEGUN = statement("count_begun")
_GROUP_ITEMS = statement("group_items")
_RUN_STATE = statement("run_state")
_GROUP_BEGIN = statement("group_begin")
_LOCK_COUNTERS = statement("lock_counters").replace("{strength}", "share")
_PARK_GROUP = statement("park_group")
_RELEASE_GROUPS = statement("release_groups")
_DROP_GROUPS = statement("drop_groups")
_COMPLETE_GROUP = statement("complete_group")
_RESERVE_RATE = statement("reserve_rate")
_LOCK_COUNTERS_ALONE = statement("lock_counters").replace("{strength}", "no key update")


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


class GroupTable:
    """The groups of runs on one database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._counters = CounterTable(store.database)

    def run_state(self, run_id: UUID) -> str:
        """Read whether a run goes on; `ended` if nothing is known of it."""
        rows = self._store.database.fetch(_RUN_STATE, (run_id,))
        return str(rows[0][0]) if rows else "ended"

    def begin(self, run_id: UUID, group_id: str) -> tuple[str, int]:
        """Read whether a group's run goes on, as `state`, and the last step that the group has recorded, 0 for none."""
        state, last = self._store.database.fetch(_GROUP_BEGIN, (run_id, group_id))[0]
        return str(state or "ended"), int(last or 0)

    def items(self, run_id: UUID, first: int, last: int, only: Sequence[int] | None) -> list[GroupItem]:
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

    def complete(self, run_id: UUID, group_id: str, owner: str, *, gone: tuple[UUID, range] | None = None) -> None:
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
                    self._counters.lower_total(run_id, part_id, len(numbers) - begun, tx)
            waiting = held[0][0] if held and held[0][1] == "stopped" else None
            if not tx.fetch(_COMPLETE_GROUP, {"id": group_id, "owner": owner, "waiting": waiting}):
                raise OwnershipLost(group_id)

    def park(self, run_id: UUID, group_id: str, owner: str) -> bool:
        """Let a group wait while its run is paused; false if it is not paused."""
        return bool(self._store.database.fetch(_PARK_GROUP, (run_id, NEVER_MS, group_id, owner)))

    def release(self, workflow_id: str, tx: PostgresTransaction) -> int:
        """Let the groups of a run that was paused go on; gives how many waited."""
        return int(tx.fetch(_RELEASE_GROUPS, (workflow_id, NEVER_MS))[0][0])

    def drop(self, workflow_id: str, tx: PostgresTransaction) -> None:
        """Let groups of a run that have not begun never begin."""
        tx.fetch(_DROP_GROUPS, (workflow_id,))

    def reserve(self, name: str, items: int, *, rate: tuple[int, float]) -> float:
        """Reserve a turn under a rate of all workers; gives the seconds to wait."""
        most, period = rate
        parameters = {"name": name, "seconds": items * period / most, "period": period}
        return float(self._store.database.run(_RESERVE_RATE, parameters)[0][0])
