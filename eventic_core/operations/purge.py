"""Purge: deleted records go for good, with all their versions; their ids read as ones that were never stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from eventic_core.errors import Conflict, Invalid, RecordNotFound
from eventic_core.operations.acts import record_act
from eventic_core.operations.sweeps import TombstoneSweep, classes_of
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope
from eventic_core.records.port import installed_store

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.operations.acts import OperatorAct
    from eventic_core.store.postgres import PostgresStore

BATCH_ROWS = 1000
_SOON = timedelta(seconds=1)


def plan_purge(class_type: str | None = None, *, older_than_seconds: int = 0, record_id: UUID | None = None) -> int:
    """Count the deleted records that `purge` would remove now, 10,001 at most; takes no locks.

    Raises:
        Invalid: Neither a class nor a record is named, or both are.
        RecordNotFound: There is no such record.
        Conflict: It is not deleted, or something unfinished needs it.
    """
    from eventic_core.operations.retention import BOUND

    return _sweep(class_type, older_than_seconds, record_id).count(BOUND + 1)


def purge(
    class_type: str | None = None,
    *,
    older_than_seconds: int = 0,
    record_id: UUID | None = None,
    reason: str | None = None,
) -> int:
    """Remove deleted records of a class and its subclasses, or one, in batches; gives how many there were.

    Kept are those with a dead letter to settle or of which a handler has something to try again, and those deleted
    since the oldest unfinished run began. May be ended at any moment and called again.

    Args:
        class_type: The class.
        older_than_seconds: For how long they have been deleted.
        record_id: One record, instead.
        reason: Why; stamped on the act.

    Raises:
        Invalid: Neither a class nor a record is named, or both are.
        RecordNotFound: There is no such record.
        Conflict: It is not deleted, or something unfinished needs it.
    """
    refuse_in_loop("purge()", "asyncio.to_thread(purge, ...)")
    sweep = _sweep(class_type, older_than_seconds, record_id)
    act: OperatorAct | None = None
    count, is_going_on = 0, True
    while is_going_on:
        with edit_scope():
            done = sweep.batch(BATCH_ROWS)
            is_going_on, count = done.is_going_on, count + done.count
            details: dict[str, Any] = {"count": count, "finished": not is_going_on}
            if act is not None:
                act.details = {**act.details, **details}
            elif done.count:
                target = str(record_id or class_type)
                act = record_act("records.purge", target, reason=reason, seconds=older_than_seconds, **details)
    return count


def _sweep(class_type: str | None, older_than_seconds: int, record_id: UUID | None) -> TombstoneSweep:
    if (class_type is None) == (record_id is None):
        message = "Name the class whose deleted records are to go, or one record by its id: one of the two."
        raise Invalid(message)
    # Of the moment of the database, which may be ahead of ours: what was deleted just now counts.
    before = datetime.now(UTC) + _SOON - timedelta(seconds=older_than_seconds)
    sweep = TombstoneSweep(classes_of(class_type), before, record_id)
    if record_id is not None and not sweep.count(1):
        raise _kept(record_id, sweep.held_by)
    return sweep


def _kept(record_id: UUID, held_by: str | None) -> RecordNotFound | Conflict:
    head = cast("PostgresStore", installed_store()).head(record_id)
    if head is None:
        return RecordNotFound(f"No record {record_id} is stored: it was purged, or never there.")
    if not head.stamp.tombstone:
        return Conflict(
            f"{head.class_type} {record_id} is not deleted. Only deleted records are purged: delete it first."
        )
    by = f"run {held_by} is unfinished and began before it was deleted" if held_by else "a handler has not settled it"
    return Conflict(
        f"{head.class_type} {record_id} is kept: {by}. Let it end, settle its dead letters with `eventic dead-letter`, "
        "then purge again. Nothing was removed."
    )
