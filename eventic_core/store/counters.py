"""The counters of runs over batches: how many items are in which status, and whether the run goes on.

Statements that move items move them with it, so they are never recounted. What they mean is decided in `automation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from eventic_core.store.engine import Database
    from eventic_core.store.transaction import PostgresTransaction

WHOLE_RUN = UUID(int=0)
"""Where a batch execution's id stands in the counters of the run as a whole."""

_OPEN_COUNTERS = statement("open_counters")
_COUNTERS = statement("counters")
_SET_RUN_STATE = statement("set_run_state")
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


class CounterTable:
    """The counters of runs on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def read(self, run_id: UUID, tx: PostgresTransaction | None = None) -> list[Counters]:
        """Read a run's counters: its own first, then its batch executions'; none if nothing executes it."""
        return [Counters._make(row) for row in (tx or self._database).fetch(_COUNTERS, (run_id,))]

    def failures(self, run_id: UUID, tx: PostgresTransaction | None = None) -> dict[str, int]:
        """Read how many items failed, by the class of their error, the most first."""
        rows = (tx or self._database).fetch(_FAILURES, (run_id,))
        return {name: int(count) for name, count, _tolerated in rows if count}

    def is_over(self, run_id: UUID, tx: PostgresTransaction) -> bool:
        """Tell whether more items failed with errors of some class than are tolerated of it."""
        rows = tx.fetch(_FAILURES, (run_id,))
        return any(tolerated is not None and count > tolerated for _name, count, tolerated in rows)

    def lower_total(self, run_id: UUID, batch_execution_id: UUID, by: int, tx: PostgresTransaction) -> None:
        """Note that a batch has fewer items than were counted."""
        tx.fetch(_LOWER_TOTAL, (by, by, run_id, [WHOLE_RUN, batch_execution_id]))

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
