"""What undoing a run would do: the inverse of every record it wrote, and where somebody else wrote since.

Owns what the inverse is; writes nothing.

An undo is stamped `<run>:undo-<attempt>`, and can be undone by that id. So the last version of a record that is of this
family tells whether what the run wrote is in force or undone already (`store/sql/undo_spans.sql`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from eventic_core.automation.corrections import CHUNK_RECORDS, Correction, Pen, RecordConflict, Tally, touches_of
from eventic_core.automation.run_changes import BOOKKEEPING, postgres_store, run_history, writer_of
from eventic_core.errors import InvalidStateError, NotRegistered
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.record_class import find_class
from eventic_core.records.stamp import current_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from eventic_core.automation.corrections import Touch
    from eventic_core.automation.run import Run
    from eventic_core.automation.run_changes import Writer
    from eventic_core.records.port import StoredVersion
    from eventic_core.records.stamp import Origin
    from eventic_core.store.run_history import Span


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
    conflicts: tuple[RecordConflict, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.workflow_id}{' (dry run)' if self.dry_run else ''}: {self.restored:,} restored, "
            f"{self.tombstoned:,} deleted, {self.unchanged:,} unchanged, {self.conflict_count:,} conflicts"
        )

    @classmethod
    def of(cls, tally: Tally, workflow_id: str, *, dry_run: bool) -> UndoReport:
        """Make it of what was counted."""
        count = tally.counts
        restored, tombstoned, unchanged = count["restore"], count["tombstone"], count["nothing"]
        conflicts = tuple(tally.conflicts)
        return cls(workflow_id, dry_run, restored, tombstoned, unchanged, tally.forced, count["conflict"], conflicts)


def plan_undo(run: Run | UUID | str, *, force: bool = False, reason: str | None = None) -> UndoPlan:
    """Plan to take back what a run wrote; see `undo`. Writes nothing, and holds nothing in memory until it is iterated.

    What shows only when it is written is not foreseen: unique keys that others hold, and a class's own checks.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: A text is no id of a run, an undo or a replay.
        InvalidStateError: The run is not finished.
        NotRegistered: It wrote records of classes that this process does not know; names them.
        BlockingInLoop: In a running event loop.
    """
    refuse_in_loop("plan_undo()", "undo_async(dry_run=True)")
    writer = writer_of(run)
    if not writer.run.status.is_finished:
        raise InvalidStateError("Run", writer.run.id, writer.run.status, "undo")
    refuse_unknown(writer, run_history().class_types(writer.workflow_ids, without=BOOKKEEPING))
    return UndoPlan(writer, force=force, reason=reason)


def refuse_unknown(writer: Writer, class_types: Sequence[str]) -> None:
    """Refuse to write over records of classes that this process does not know.

    Raises:
        NotRegistered: There are some; names them.
    """
    if unknown := [name for name in class_types if find_class(name) is None]:
        message = (
            f"Run {writer.workflow_id} wrote records of {', '.join(unknown)}, which this process does not know. Import "
            "the modules that define these classes, then try again. Nothing was written."
        )
        raise NotRegistered(message)


def origin_of(writer: Writer, workflow_id: str) -> Origin:
    """Give what corrections of a run's records are stamped with."""
    origin = current_origin()
    correlation_id = writer.run.correlation_id or origin.correlation_id
    return origin._replace(correlation_id=correlation_id, workflow_id=workflow_id, step_id=None)


class UndoPlan:
    """What an undo would do now; iterating streams a `Correction` for each record, by id, and writes nothing.

    Attributes:
        workflow_id: What the undo's versions would be stamped with.
    """

    def __init__(self, writer: Writer, *, force: bool, reason: str | None) -> None:
        self.workflow_id = writer.undo_id
        self._writer = writer
        origin = origin_of(writer, writer.undo_id)
        self._pen = Pen(origin, reason or f"undo of run {writer.workflow_id}", force)
        self._history = run_history()
        self._store = postgres_store()

    def __iter__(self) -> Iterator[Correction]:
        return chain.from_iterable(self.pages())

    def report(self) -> UndoReport:
        """Count what the undo would do, and list the conflicts."""
        tally = Tally()
        for inverse in self:
            tally.add(inverse)
        return UndoReport.of(tally, self.workflow_id, dry_run=True)

    def pages(self) -> Iterator[list[Correction]]:
        """Give the inverses a chunk at a time, each as of when it is read."""
        records = self._history.records(self._writer.workflow_ids, without=BOOKKEEPING)
        while page := list(islice(records, CHUNK_RECORDS)):
            yield self._inverses(page)

    def again(self, corrections: Sequence[Correction]) -> list[Correction]:
        """Plan the same records once more, as they are now."""
        return self._inverses([(inverse.record_id, inverse.source) for inverse in corrections])

    def _inverses(self, records: Sequence[tuple[UUID, int]]) -> list[Correction]:
        """Find what is to be done about some records, in three statements, or four where others wrote.

        Args:
            records: Each with the first version of it that the run wrote.
        """
        workflow_id, workflow_ids = self._writer.workflow_id, self._writer.workflow_ids
        spans = self._history.spans(workflow_id, workflow_ids, records)
        touched = [(span.id, span.first) for span in spans if span.first is not None and span.others]
        touches = touches_of(touched, workflow_ids, branch=f"{workflow_id}:undo-")
        wanted = [(span.id, span.head) for span in spans]
        wanted += [(span.id, span.first - 1) for span in spans if span.first]
        rows = {(row.id, row.version): row for row in self._store.versions(wanted)}
        found = []
        for span, (_, since) in zip(spans, records, strict=True):
            head = rows[span.id, span.head]
            base = None if span.first is None else rows.get((span.id, span.first - 1))
            found.append(self._inverse(head, base, span, touches.get(span.id, ()), since))
        return found

    def _inverse(
        self, head: StoredVersion, base: StoredVersion | None, span: Span, touches: tuple[Touch, ...], since: int
    ) -> Correction:
        conflict = RecordConflict(head.class_type, head.id, head.version, touches, span.others)
        touched = conflict if span.others else None
        found = Correction("nothing", head.class_type, head.id, head, base, touched, since)
        if span.first is None:
            return replace(found, conflict=None)
        if base is None and span.first and not head.stamp.tombstone:
            return found.refused(f"Version {span.first - 1}, from before the run, is not stored any more.")
        return self._pen.correct(found)
