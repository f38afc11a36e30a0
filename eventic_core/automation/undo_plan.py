"""What undoing a run would do: the inverse of every record it wrote, and where somebody else wrote since.

Owns what an inverse and what a conflict is; writes nothing. `undo` carries plans out.

An undo is stamped `<run>:undo-<attempt>`, and can be undone by that id. So the last version of a record that is of this
family tells whether what the run wrote is in force or undone already (`store/sql/undo_spans.sql`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, Literal

from eventic_core.automation.run_changes import BOOKKEEPING, compare_rows, postgres_store, run_history, writer_of
from eventic_core.errors import EventicError, InvalidStateError, NotRegistered
from eventic_core.records import state
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.documents import changed_fields, load
from eventic_core.records.record_class import find_class
from eventic_core.records.stamp import current_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.automation.run import Run
    from eventic_core.automation.run_changes import Writer
    from eventic_core.records import Record
    from eventic_core.records.diff import Diff
    from eventic_core.records.port import Append, StoredVersion
    from eventic_core.records.stamp import Origin
    from eventic_core.store.run_history import Span

_CHUNK_RECORDS: Final = 500
_KEPT_CONFLICTS: Final = 1_000
_LISTED_TOUCHES: Final = 10


@dataclass(frozen=True, slots=True)
class Touch:
    """A version that somebody else wrote after the run: which, who, why, when, and what it changed."""

    version: int
    actor: str | None
    reason: str | None
    workflow_id: str | None
    recorded_at: datetime
    fields: tuple[str, ...]
    """Empty where it changed no field: a deletion, for one."""


@dataclass(frozen=True, slots=True)
class UndoConflict:
    """A record that an undo leaves as it is, unless it is forced.

    Attributes:
        version: Its current version.
        touches: The last versions that others wrote since the run's first, at most ten, oldest first.
        touched_count: How many there are.
        problem: What refuses the earlier values, forced or not: a unique key that somebody holds, a state that may not
            follow, a check of the class; `None` where nothing does.
    """

    class_type: str
    record_id: UUID
    version: int
    touches: tuple[Touch, ...] = ()
    touched_count: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Inverse:
    """What an undo does about one record.

    Attributes:
        action: `restore` writes the values of before, `tombstone` deletes, `nothing` because it is as before already or
            undone, `conflict` leaves it alone.
        head: Its current version, on which the action depends.
        base: The version before the run's first one; `None` if the run created it.
        conflict: Set where others wrote too, or something is in the way; forced or not.
        since: The first version of it that the run wrote.
        record: Where something is to be written, the record with the values it is to have.
        append: The version to be written.
    """

    action: Literal["restore", "tombstone", "nothing", "conflict"]
    head: StoredVersion
    base: StoredVersion | None
    conflict: UndoConflict | None = None
    since: int = field(default=0, repr=False)
    record: Record | None = field(default=None, repr=False)
    append: Append | None = field(default=None, repr=False)

    @property
    def class_type(self) -> str:
        """The record's class, by its stored name."""
        return self.head.class_type

    @property
    def record_id(self) -> UUID:
        """The record."""
        return self.head.id

    @property
    def diff(self) -> Diff:
        """What leads from the current values to those of before; of a created record, nothing."""
        return compare_rows(self.head, self.base or self.head)

    def refused(self, problem: str) -> Inverse:
        """Give the same as a conflict, because of what stood in the way of writing it."""
        conflict = self.conflict or UndoConflict(self.class_type, self.record_id, self.head.version)
        return replace(self, action="conflict", conflict=replace(conflict, problem=problem), record=None, append=None)


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What an undo did, or in a dry run would do, in numbers of records.

    Attributes:
        workflow_id: What the versions it wrote are stamped with; undoing this id takes them back.
        restored: Given the values of before; a deleted one is back.
        tombstoned: Deleted, as they were before the run, or because it created them.
        unchanged: As before already, or undone earlier.
        forced: Of those restored and tombstoned, the ones that others had written too.
        conflict_count: Left as they are.
        conflicts: The first thousand of these.
    """

    workflow_id: str
    dry_run: bool
    restored: int = 0
    tombstoned: int = 0
    unchanged: int = 0
    forced: int = 0
    conflict_count: int = 0
    conflicts: tuple[UndoConflict, ...] = ()


def plan_undo(run: Run | UUID | str, *, force: bool = False, reason: str | None = None) -> UndoPlan:
    """Plan to take back what a run wrote; see `undo`. Writes nothing, and holds nothing in memory until it is iterated.

    What shows only when it is written is not foreseen: unique keys that others hold, and a class's own checks.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: A text is no id of a run or an undo.
        InvalidStateError: The run is not finished.
        NotRegistered: It wrote records of classes that this process does not know; names them.
        BlockingInLoop: In a running event loop.
    """
    refuse_in_loop("plan_undo()", "undo_async(dry_run=True)")
    writer = writer_of(run)
    if not writer.run.status.is_finished:
        raise InvalidStateError("Run", writer.run.id, writer.run.status, "undo")
    written = run_history().class_types(writer.workflow_ids, without=BOOKKEEPING)
    if unknown := [name for name in written if find_class(name) is None]:
        message = (
            f"Run {writer.workflow_id} wrote records of {', '.join(unknown)}, which this process does not know. Import "
            "the modules that define these classes, then undo it. Nothing was written."
        )
        raise NotRegistered(message)
    return UndoPlan(writer, force=force, reason=reason)


class UndoPlan:
    """What an undo would do now; iterating streams an `Inverse` for each record, by id, and writes nothing.

    Attributes:
        workflow_id: What the undo's versions would be stamped with.
    """

    def __init__(self, writer: Writer, *, force: bool, reason: str | None) -> None:
        self._writer = writer
        self._force = force
        self._reason = reason or f"undo of run {writer.workflow_id}"
        self._history = run_history()
        self._store = postgres_store()
        self._origin: Origin = replace(
            current_origin(),
            correlation_id=writer.run.correlation_id or current_origin().correlation_id,
            workflow_id=writer.undo_id,
            step_id=None,
        )
        self.workflow_id = writer.undo_id

    def __iter__(self) -> Iterator[Inverse]:
        return chain.from_iterable(self.pages())

    def report(self) -> UndoReport:
        """Count what the undo would do, and list the conflicts."""
        tally = Tally()
        for inverse in self:
            tally.add(inverse)
        return tally.report(self.workflow_id, dry_run=True)

    def pages(self) -> Iterator[list[Inverse]]:
        """Give the inverses a chunk at a time, each as of when it is read."""
        records = self._history.records(self._writer.workflow_ids, without=BOOKKEEPING)
        while page := list(islice(records, _CHUNK_RECORDS)):
            yield self.inverses(page)

    def inverses(self, records: Sequence[tuple[UUID, int]]) -> list[Inverse]:
        """Find what is to be done about some records, in three statements, or four where others wrote.

        Args:
            records: Each with the first version of it that the run wrote.
        """
        spans = self._history.spans(self._writer.workflow_id, self._writer.workflow_ids, records)
        touches = self._touches([span for span in spans if span.first is not None and span.others])
        wanted = [(span.id, span.head) for span in spans]
        wanted += [(span.id, span.first - 1) for span in spans if span.first]
        rows = {(row.id, row.version): row for row in self._store.versions(wanted)}
        found = []
        for span, (_, since) in zip(spans, records, strict=True):
            head = rows[span.id, span.head]
            if span.first is None:
                found.append(Inverse("nothing", head, None, since=since))
            else:
                base = rows.get((span.id, span.first - 1))
                found.append(self._inverse(head, base, span, touches.get(span.id, []), since))
        return found

    def again(self, inverses: Sequence[Inverse]) -> list[Inverse]:
        """Plan the same records once more, as they are now."""
        return self.inverses([(inverse.record_id, inverse.since) for inverse in inverses])

    def _touches(self, spans: Sequence[Span]) -> dict[UUID, list[Touch]]:
        found: dict[UUID, list[Touch]] = {}
        writer = self._writer
        rows = self._history.touches(writer.workflow_id, writer.workflow_ids, spans, _LISTED_TOUCHES) if spans else []
        for row, before in rows:
            stamp, fields = row.stamp, changed_fields(load(before), row.document)
            touch = Touch(row.version, stamp.actor, stamp.reason, stamp.workflow_id, stamp.recorded_at, fields)
            found.setdefault(row.id, []).append(touch)
        return found

    def _inverse(
        self, head: StoredVersion, base: StoredVersion | None, span: Span, touches: Sequence[Touch], since: int
    ) -> Inverse:
        gone = base is None or base.stamp.tombstone
        if gone and head.stamp.tombstone:
            return Inverse("nothing", head, base, since=since)
        conflict = UndoConflict(head.class_type, head.id, head.version, tuple(touches), span.others)
        if base is None and span.first:
            problem = f"Version {span.first - 1}, from before the run, is not stored any more."
            return Inverse("conflict", head, base, replace(conflict, problem=problem), since)
        try:
            record, append = self._next(head, base, gone=gone)
        except EventicError as error:
            return Inverse("conflict", head, base, replace(conflict, problem=error.message), since)
        if append is None:
            return Inverse("nothing", head, base, since=since)
        if span.others and not self._force:
            return Inverse("conflict", head, base, conflict, since)
        return Inverse(
            "tombstone" if gone else "restore", head, base, conflict if span.others else None, since, record, append
        )

    def _next(self, head: StoredVersion, base: StoredVersion | None, *, gone: bool) -> tuple[Record, Append | None]:
        cls = find_class(head.class_type)
        assert cls is not None
        record = state.from_row(cls, head)
        if base is not None:
            state.adopt_values(record, state.validated(cls, base))
        append = state.next_version(
            record,
            self._origin,
            reason=self._reason,
            delete=gone,
            restore=head.stamp.tombstone,
            max_bytes=self._store.max_record_bytes,
        )
        return record, append


class Tally:
    """Counts what was done, keeping the first conflicts."""

    def __init__(self) -> None:
        self._counts = {"restore": 0, "tombstone": 0, "nothing": 0, "conflict": 0}
        self._forced = 0
        self._conflicts: list[UndoConflict] = []

    def add(self, inverse: Inverse) -> None:
        """Count a record."""
        self._counts[inverse.action] += 1
        if inverse.action != "conflict":
            self._forced += inverse.conflict is not None
        elif inverse.conflict is not None and len(self._conflicts) < _KEPT_CONFLICTS:
            self._conflicts.append(inverse.conflict)

    def report(self, workflow_id: str, *, dry_run: bool) -> UndoReport:
        """Give the numbers."""
        restored, tombstoned, unchanged, conflicts = self._counts.values()
        return UndoReport(
            workflow_id, dry_run, restored, tombstoned, unchanged, self._forced, conflicts, tuple(self._conflicts)
        )
