"""What is written over what a run wrote: by an undo, what was before; by a published replay, what that came to.

Owns what a correction of a record and what a conflict is, and how many corrections are written in chunks. Each chunk
commits by itself and is held to the versions it was planned for, so that the whole may be killed and called again.
What the records are to be is decided in `undo_plan` and `replay_plan`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from eventic_core.automation.run_changes import compare_rows, postgres_store, run_history
from eventic_core.errors import Conflict, DuplicateKey, EventicError, RecordExists
from eventic_core.records import state
from eventic_core.records.documents import changed_fields, load
from eventic_core.records.port import StaleWrite
from eventic_core.records.record_class import find_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.records import Record
    from eventic_core.records.diff import Diff
    from eventic_core.records.port import Append, Key, StoredVersion
    from eventic_core.records.stamp import Origin

CHUNK_RECORDS: Final = 500
_DEFERRED_RECORDS: Final = 5_000
"""Records that may exchange unique keys in one transaction."""
_ATTEMPTS: Final = 20
"""At a chunk of which others write a record each time between the reading and the writing."""
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
class RecordConflict:
    """A record that is left as it is, unless that is forced.

    Attributes:
        version: Its current version; -1 if there is none.
        touches: The last versions that others wrote since the run's first, at most ten, oldest first.
        touched_count: How many there are.
        problem: What refuses the values, forced or not: a unique key that somebody holds, a state that may not follow,
            a check of the class; `None` where nothing does.
    """

    class_type: str
    record_id: UUID
    version: int
    touches: tuple[Touch, ...] = ()
    touched_count: int = 0
    problem: str | None = None

    def line(self) -> str:
        """Render it as text."""
        touched = [f"version {touch.version} by {touch.actor or 'unknown'}" for touch in self.touches]
        return f"{self.class_type} {self.record_id}: {self.problem or ', '.join(touched)}"


@dataclass(frozen=True, slots=True)
class Correction:
    """What is to be done about one record.

    Attributes:
        action: `create` makes it, `restore` gives it other values, `tombstone` deletes it, `nothing` because it is as
            wanted already, `conflict` leaves it alone.
        head: Its current version, on which the action depends; `None` if there is none yet.
        wanted: The values it is to have; `None` or a tombstone if it is to be deleted.
        conflict: Set where others wrote too, or something is in the way; forced or not.
        source: What the plan makes it of.
        record: Where something is to be written, the record with the values it is to have.
        append: The version to be written.
    """

    action: Literal["create", "restore", "tombstone", "nothing", "conflict"]
    class_type: str
    record_id: UUID
    head: StoredVersion | None
    wanted: StoredVersion | None
    conflict: RecordConflict | None = None
    source: Any = field(default=None, repr=False)
    record: Record | None = field(default=None, repr=False)
    append: Append | None = field(default=None, repr=False)

    @property
    def diff(self) -> Diff:
        """What leads from the current values to those wanted; where it is to be deleted, nothing."""
        wanted = self.wanted or self.head
        assert wanted is not None
        return compare_rows(self.head, wanted)

    def refused(self, problem: str) -> Correction:
        """Give the same as a conflict, because of what stood in the way of writing it."""
        version = -1 if self.head is None else self.head.version
        conflict = self.conflict or RecordConflict(self.class_type, self.record_id, version)
        return replace(self, action="conflict", conflict=replace(conflict, problem=problem), record=None, append=None)


@dataclass(frozen=True, slots=True)
class Pen:
    """Makes corrections: in whose name, why, and whether over what others wrote."""

    origin: Origin
    reason: str
    force: bool

    def correct(self, found: Correction, *, step_id: int | None = None) -> Correction:
        """Decide what is done to a record, and make the version.

        Args:
            found: The record with what is wanted of it, and as `conflict` what others wrote.
            step_id: Stamped on the version.
        """
        head, wanted, conflict = found.head, found.wanted, found.conflict
        gone = wanted is None or wanted.stamp.tombstone
        if gone and (head is None or head.stamp.tombstone):
            return replace(found, action="nothing", conflict=None)
        try:
            record, append = self._next(found, gone=gone, origin=self.origin._replace(step_id=step_id))
        except EventicError as error:
            return found.refused(error.message)
        if append is None:
            return replace(found, action="nothing", conflict=None)
        if conflict is not None and not self.force:
            return replace(found, action="conflict")
        action: Literal["create", "restore", "tombstone"] = "tombstone" if gone else "restore"
        return replace(found, action="create" if head is None else action, record=record, append=append)

    def _next(self, found: Correction, *, gone: bool, origin: Origin) -> tuple[Record, Append | None]:
        cls: Any = find_class(found.class_type)
        values = None if found.wanted is None else state.validated(cls, found.wanted)
        if found.head is not None:
            record = state.from_row(cls, found.head)
            if values is not None:
                state.adopt_values(record, values)
        else:
            assert values is not None
            record = values
            state.prepare_draft(record, found.record_id)
        append = state.next_version(
            record,
            origin,
            reason=self.reason,
            delete=gone,
            restore=found.head is not None and found.head.stamp.tombstone,
            max_bytes=postgres_store().max_record_bytes,
        )
        return record, append


class Plan(Protocol):
    """What is to be corrected; nothing of it is held in memory."""

    def pages(self) -> Iterator[list[Correction]]:
        """Give the corrections a chunk at a time, each as of when it is read."""
        ...

    def again(self, corrections: Sequence[Correction]) -> list[Correction]:
        """Plan the same records once more, as they are now."""
        ...


class Tally:
    """Counts what was done, keeping the first conflicts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.forced = 0
        self.conflicts: list[RecordConflict] = []

    def add(self, correction: Correction) -> None:
        """Count a record."""
        self.counts[correction.action] += 1
        if correction.action != "conflict":
            self.forced += correction.conflict is not None
        elif correction.conflict is not None and len(self.conflicts) < _KEPT_CONFLICTS:
            self.conflicts.append(correction.conflict)


def touches_of(
    records: Sequence[tuple[UUID, int]], workflow_ids: Sequence[str], *, branch: str | None
) -> dict[UUID, tuple[Touch, ...]]:
    """Read what others wrote after a version of each record; see `RunHistory.touches`."""
    if not records:
        return {}
    found: dict[UUID, tuple[Touch, ...]] = {}
    for row, before in run_history().touches(records, workflow_ids, branch=branch, limit=_LISTED_TOUCHES):
        stamp = row.stamp
        fields = () if before is None else changed_fields(load(before), row.document)
        touch = Touch(row.version, stamp.actor, stamp.reason, stamp.workflow_id, stamp.recorded_at, fields)
        found[row.id] = (*found.get(row.id, ()), touch)
    return found


class Writing:
    """One plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tally = Tally()
        self._history = run_history()
        self._store = postgres_store()

    def run(self) -> Tally:
        """Write everything, then once more what was in the way of each other."""
        deferred: list[Correction] = []
        for page in self._plan.pages():
            deferred += self._write(page)
        while deferred:
            waiting, left = iter(deferred), []
            while chunk := list(islice(waiting, _DEFERRED_RECORDS)):
                left += self._write(self._plan.again(chunk))
            if len(left) == len(deferred):
                break
            deferred = left
        for correction in deferred:
            self._tally.add(correction)
        return self._tally

    def _write(self, corrections: Sequence[Correction]) -> list[Correction]:
        """Write a chunk, and count what was done; gives those that something stood in the way of, to be tried again."""
        deferred: list[Correction] = []
        ready: list[Correction] = []
        for _ in range(_ATTEMPTS):
            ready = self._ready(corrections, deferred)
            try:
                self._append(ready)
            except DuplicateKey as error:
                blocked = self._blocked(ready)
                deferred += [one.refused(error.message) for one in ready if one.record_id in blocked]
                ready = [one for one in ready if one.record_id not in blocked]
            except (StaleWrite, RecordExists):
                pass
            except Conflict as error:
                if type(error) is not Conflict:  # which is what a deadlock is
                    raise
            else:
                for correction in ready:
                    self._tally.add(correction)
                return deferred
            corrections = self._plan.again(ready)
        problem = f"Others wrote it, or records beside it, {_ATTEMPTS} times while it was to be written. Try again."
        return deferred + [correction.refused(problem) for correction in ready]

    def _ready(self, corrections: Sequence[Correction], deferred: list[Correction]) -> list[Correction]:
        """Give those that can be written; count those with nothing to write, defer those their class refuses."""
        ready = []
        for correction in corrections:
            if correction.record is None or correction.append is None:
                self._tally.add(correction)
                continue
            try:
                if not correction.append.tombstone:
                    correction.record._before_store()  # noqa: SLF001 - what a scope asks before it writes a version
            except EventicError as error:
                deferred.append(correction.refused(error.message))
            else:
                ready.append(correction)
        return ready

    def _append(self, ready: Sequence[Correction]) -> None:
        """Write all or none. Records may take unique keys from each other, so all are freed before any is taken."""
        appends = [correction.append for correction in ready if correction.append is not None]
        keys = [(append.id, key) for append in appends for key in append.keys]
        if not appends:
            return
        if all(key.value is None for _, key in keys):
            self._store.append(appends)
            return
        with self._store.transaction() as transaction:
            self._history.free(transaction, keys)
            self._store.append(appends, transaction)

    def _blocked(self, ready: Sequence[Correction]) -> set[UUID]:
        """Find the records that want a unique key which none of the others is about to give up."""
        wanted = {one.record_id: one.append.keys for one in ready if one.append is not None}
        blocked: set[UUID] = set()
        taken: set[Key] = set()
        for record_id, keys in wanted.items():
            if not taken.isdisjoint(keys):
                blocked.add(record_id)
            taken.update(key for key in keys if key.value is not None)
        while True:  # one that is blocked keeps its own key, which may block another
            left = [record_id for record_id in wanted if record_id not in blocked]
            found = self._history.blocked([(record_id, key) for record_id in left for key in wanted[record_id]], left)
            if not found:
                return blocked
            blocked |= found
