"""`run.changes()`: every record version that a run wrote, and which item of it wrote it.

Owns how a run, its attempts, its undos and its published replays are recognised in the stamps of versions. Reads
committed versions only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from uuid import UUID

from eventic_core.automation.executions import BatchExecution, ItemExecution
from eventic_core.automation.run import Run
from eventic_core.errors import Invalid, RecordNotFound
from eventic_core.records import evolution
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.diff import Diff, compare
from eventic_core.records.port import installed_store
from eventic_core.records.record_class import family, find_class
from eventic_core.records.state import from_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from eventic_core.records import Record
    from eventic_core.records.port import StoredVersion
    from eventic_core.store import PostgresStore
    from eventic_core.store.run_history import RunHistory

BOOKKEEPING: Final = tuple(cls.__eventic__.class_type for cls in (Run, BatchExecution, ItemExecution))
"""The classes in which a run keeps what it has done; no part of what it did."""

_CORRECTION: Final = re.compile(r"([0-9a-f-]{36})(?=:)(?::replay-[1-9][0-9]*)?(?::undo-[1-9][0-9]*)*")
"""A published replay of a run, or an undo: of the run, of its replay, or of another undo."""
_DELETED: Final[dict[tuple[bool, bool], Literal["update", "delete", "restore"]]] = {
    (False, True): "delete",
    (True, False): "restore",
}


@dataclass(frozen=True)
class RunChange:
    """One version that a run wrote.

    Attributes:
        before_version: The version it followed; `None` if it created the record.
        item_number: The number of the item, in the run, whose function wrote it; `None` outside of items.
        attempt: The attempt of the run that wrote it.
        tombstone: Whether it deleted the record.
    """

    after: StoredVersion
    before: StoredVersion | None
    attempt: int

    @property
    def class_type(self) -> str:
        """The record's class, by its stored name."""
        return self.after.class_type

    @property
    def record_id(self) -> UUID:
        """The record."""
        return self.after.id

    @property
    def version(self) -> int:
        """The version."""
        return self.after.version

    @property
    def before_version(self) -> int | None:
        """The version it followed; `None` if it created the record."""
        return None if self.before is None else self.before.version

    @property
    def item_number(self) -> int | None:
        """The number, in the run, of the item that wrote it; `None` for what was written outside of items."""
        return self.after.stamp.step_id

    @property
    def tombstone(self) -> bool:
        """Whether it deleted the record."""
        return self.after.stamp.tombstone

    @property
    def kind(self) -> Literal["create", "update", "delete", "restore"]:
        """What it did to the record."""
        return kind_of(self.before, self.after)

    @property
    def recorded_at(self) -> datetime:
        """When it was written."""
        return self.after.stamp.recorded_at

    @property
    def actor(self) -> str | None:
        """Who wrote it."""
        return self.after.stamp.actor

    @cached_property
    def diff(self) -> Diff:
        """What it changed; of a created record, everything. A deletion changes no field.

        Raises:
            EvolutionError: No chain of upcasters reaches one of the versions.
        """
        return compare_rows(self.before, self.after)


@dataclass(frozen=True)
class Writer:
    """A run, an undo or a published replay, as the stamps of versions know it.

    Attributes:
        run: The run, as it is stored now.
        workflow_id: The run's id, or the undo's or replay's.
        workflow_ids: What its versions are stamped with: of a run, one for each attempt.
    """

    run: Run
    workflow_id: str
    workflow_ids: tuple[str, ...]

    @property
    def is_correction(self) -> bool:
        """Whether it is an undo or a published replay, and not the run itself."""
        return self.workflow_id != str(self.run.id)

    @property
    def undo_id(self) -> str:
        """What an undo of it stamps its versions with: one number for each attempt of the run."""
        return f"{self.workflow_id}:undo-{1 if self.is_correction else len(self.workflow_ids)}"

    def attempt_of(self, version: StoredVersion) -> int:
        """Give the attempt that wrote one of its versions; an undo or a replay has one."""
        return self.workflow_ids.index(version.stamp.workflow_id or "") + 1


def changes(
    run: Run | UUID | str,
    *,
    record_class: type[Record] | None = None,
    item_number: int | None = None,
    attempt: int | None = None,
    bookkeeping: bool = False,
) -> Iterator[RunChange]:
    """Stream every record version that a run wrote, in the order of the feed, in bounded memory.

    That is the order of writing: of one record always, of different ones to the transaction. What is committed when the
    iteration begins is given; a run may still be writing.

    Args:
        run: The run, its id, or the workflow id of an undo or a published replay of it, such as
            `UndoReport.workflow_id` and `Published.workflow_id`.
        record_class: Only of this class and its subclasses.
        item_number: Only by the item with this number in the run.
        attempt: Only by this attempt of the run, from 1.
        bookkeeping: Also the versions of the run itself, its batch executions and item executions.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: The run has no such attempt, or a text is no id of a run, an undo or a replay.
        BlockingInLoop: In a running event loop.
    """
    refuse_in_loop("changes()", "asyncio.to_thread(list, run.changes())")
    writer = writer_of(run)
    workflow_ids = writer.workflow_ids
    if attempt is not None:
        if not 1 <= attempt <= len(workflow_ids):
            message = f"Run {writer.workflow_id} has no attempt {attempt}: it has had {len(workflow_ids)}."
            raise Invalid(message)
        workflow_ids = workflow_ids[attempt - 1 : attempt]
    found = run_history().changes(
        workflow_ids,
        class_types=None if record_class is None else family(record_class),
        without=() if bookkeeping else BOOKKEEPING,
        step_id=item_number,
    )
    return (RunChange(after, before, writer.attempt_of(after)) for after, before in found)


def writer_of(run: Run | UUID | str) -> Writer:
    """Find a run as it is stored now, or an undo or a published replay of it, and what that stamps its versions with.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: A text is no id of a run, an undo or a replay.
    """
    correction = _CORRECTION.fullmatch(run) if isinstance(run, str) else None
    try:
        run_id = run.id if isinstance(run, Run) else UUID(correction[1] if correction else str(run))
    except ValueError as error:
        message = f"{run!r} is no id of a run, nor of an undo or a replay, such as <run>:undo-1 or <run>:replay-1."
        raise Invalid(message) from error
    head = installed_store().head(run_id)
    if head is None or head.class_type not in family(Run):
        message = f"No Run {run_id} is stored. Check the id."
        raise RecordNotFound(message)
    stored = from_row(Run, head)
    if correction is not None:
        return Writer(stored, correction[0], (correction[0],))
    later = (f"{run_id}:{number}" for number in range(2, stored.attempt + 1))
    return Writer(stored, str(run_id), (str(run_id), *later))


def run_history() -> RunHistory:
    """Give the reader of what runs wrote, on the installed store."""
    from eventic_core.store.run_history import RunHistory

    return RunHistory(postgres_store().database)


def postgres_store() -> PostgresStore:
    """Give the installed store, whatever the running workflow puts in front of it.

    Raises:
        NotInitialised: `Eventic.init` was not called.
    """
    return cast("PostgresStore", installed_store())


def kind_of(before: StoredVersion | None, after: StoredVersion) -> Literal["create", "update", "delete", "restore"]:
    """Tell what leads from one version of a record to a later one."""
    if before is None:
        return "create"
    return _DELETED.get((before.stamp.tombstone, after.stamp.tombstone), "update")


def compare_rows(before: StoredVersion | None, after: StoredVersion) -> Diff:
    """Compare two stored versions of a record; before its first there is nothing, as version -1.

    Raises:
        EvolutionError: They are of different schema versions, and no chain of upcasters reaches one of them.
    """
    lifted = before is not None and before.stamp.schema_version != after.stamp.schema_version
    old = (-1, {}) if before is None else (before.version, _document(before, lifted=lifted))
    return compare(old, (after.version, _document(after, lifted=lifted)))


def _document(row: StoredVersion, *, lifted: bool) -> dict[str, Any]:
    """Decode a version, lifted to the schema version of its class if this process knows the class."""
    cls = find_class(row.class_type) if lifted else None
    if cls is None:
        return row.document
    definition = cls.__eventic__
    return evolution.upcast(
        row.class_type,
        row.document,
        stored=row.stamp.schema_version,
        schema_version=definition.schema_version,
        upcasters=definition.upcasters,
    )
