"""Changes: what a scope's records were, and what of them is still to be written, level by level of nesting.

Everything a scope holds in memory, and how a level is undone there. Reads and writes nothing; `scope` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from eventic_core.errors import ScopeError
from eventic_core.records import state
from eventic_core.records.level import Level, Pending, Unwritten
from eventic_core.records.stamp import current_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from uuid import UUID

    from eventic_core.records.identity import Identified
    from eventic_core.records.port import Append, Work, Written


class Changes:
    """What the records of one scope were and are to be; a scope's part that needs no store.

    Attributes:
        holding: Whether records made from now on wait for `release`, for a unit of work with repositories.
    """

    def __init__(self, max_bytes: int) -> None:
        self.holding = False
        self._max_bytes = max_bytes
        self._levels: list[Level] = []
        self._records: dict[UUID, Identified] = {}
        self._pending: dict[UUID, Pending] = {}
        self._held: set[UUID] = set()
        self._written: set[UUID] = set()

    # -- what is to be written

    def enqueue(self, work: Work) -> None:
        """Enqueue background work in the scope's transaction, or not at all."""
        self._levels[-1].unwritten.work.append(work)

    @property
    def _work(self) -> list[Work]:
        return [work for level in self._levels for work in level.unwritten.work]

    @property
    def _sealed(self) -> list[tuple[Pending, Append]]:
        """The versions that were finished before their records were changed again, without those held back."""
        found = [one for level in self._levels for one in level.unwritten.sealed]
        return [(pending, append) for pending, append in found if append.id not in self._held]

    def _appends(self) -> list[tuple[Pending, Append]]:
        """Make the versions that are to be written now, each with the change that it is of."""
        found = self._sealed
        for pending in list(self._pending.values()):
            append = None if pending.record.id in self._held else self._next(pending)
            if append is not None:
                found.append((pending, append))
        return found

    def _next(self, pending: Pending) -> Append | None:
        append = state.next_version(
            pending.record,
            pending.origin,
            reason=pending.reason,
            delete=pending.delete,
            restore=pending.restore,
            max_bytes=self._max_bytes,
            calls=pending.calls,
        )
        if append is not None and not append.tombstone:
            pending.record._before_store()
        return append

    # -- changes of records

    def _change(self, record: Identified) -> Pending:
        """Make a record part of what is to be written, before it is changed."""
        level = self._levels[-1]
        pending = self._pending.get(record.id)
        if pending is None and record.is_stored:
            state.refuse_drift(record)
        if record.id not in level.before:
            level.before[record.id] = (state.snapshot(record), replace(pending) if pending else None)
        if pending is None:
            pending = self._pending[record.id] = Pending(record, self._reason(), current_origin())
            if not record.is_stored:  # from here on an inner level may have to undo its changes
                state.guard_containers(record)
                if self.holding:
                    self._held.add(record.id)
        elif level.reason or pending.reason is None:  # given for this change, or the first since the last flush
            pending.reason = self._reason()
        pending.origin = current_origin()  # of the change, whoever ends the scope
        return pending

    def note_call(self, record: Identified, method: str) -> None:
        """Make a method's call part of what is known of the versions it makes of its record."""
        self._levels[-1].called = (record.id, method)
        pending = self._pending[record.id]
        if method not in pending.calls:
            pending.calls = (*pending.calls, method)

    def seal_move(self, record: Identified) -> None:
        """Make what is pending of a record a version of its own if it has moved its state, or is new."""
        states, pending = record.__eventic__.states, self._pending.get(record.id)
        if states is None or pending is None or str(getattr(record, states.field)) == state.stored_state(record):
            return
        append = self._next(pending)
        assert append is not None
        self._levels[-1].unwritten.sealed.append((pending, append))
        state.seal(record, append)
        self._restart(pending)

    def restamp(self, record: Identified) -> None:
        """Make what is not written yet of a record a change of who acts now."""
        origin, pending = current_origin(), self._pending.get(record.id)
        if pending is not None:
            pending.origin = origin
        for unwritten in self._every_unwritten():
            unwritten.sealed = [
                (of, append._replace(actor=origin.actor) if append.id == record.id else append)
                for of, append in unwritten.sealed
            ]

    def withdraw(self, record: Identified) -> None:
        """Forget a record of which nothing is written yet: a new one is a draft again, as it was made.

        Raises:
            ScopeError: A version of it is written in the open transaction.
        """
        if record.id in self._written:
            message = f"{type(record).__name__} {record.id} is written in this transaction already: delete it instead."
            raise ScopeError(message)
        found = [level.before.pop(record.id) for level in self._levels if record.id in level.before]
        for unwritten in self._every_unwritten():
            unwritten.sealed = [(of, append) for of, append in unwritten.sealed if append.id != record.id]
        self._forget(record)
        if found:
            state.restore(found[0][0])

    def release(self, record: Identified | None = None) -> None:
        """Have a new record that was held back, or all of them, written at the next flush."""
        self._held -= self._held if record is None else {record.id}

    def _every_unwritten(self) -> Iterator[Unwritten]:
        for level in self._levels:
            yield level.unwritten
            yield from level.at_savepoint

    def _reason(self) -> str | None:
        """The innermost reason given, else `acting`'s, else the innermost default."""
        explicit = next((level.reason for level in reversed(self._levels) if level.reason), None)
        default = next((level.default_reason for level in reversed(self._levels) if level.default_reason), None)
        return explicit or current_origin().reason or default

    # -- what is known of records

    def find(self, record_id: UUID) -> Identified | None:
        """Give the scope's own object for an id, if it has one."""
        return self._records.get(record_id)

    def records(self) -> list[Identified]:
        """List the scope's own objects, in the order in which it came to know them."""
        return list(self._records.values())

    def is_held(self, record_id: UUID) -> bool:
        """Tell whether the record is new and waits for `release`."""
        return record_id in self._held

    def is_new(self, record_id: UUID) -> bool:
        """Tell whether the record is new and nothing of it is written yet."""
        unwritten = (append for level in self._levels for _, append in level.unwritten.sealed)
        sealed = any(append.id == record_id and append.version == 0 for append in unwritten)
        return record_id in self._pending and (sealed or not self._pending[record_id].record.is_stored)

    def is_deleting(self, record_id: UUID) -> bool:
        """Tell whether the record is to become a tombstone at the next flush."""
        pending = self._pending.get(record_id)
        return pending is not None and pending.delete

    # -- around a write

    def _remember(self, pendings: Iterable[Pending]) -> None:
        """Keep what records are before they are written, for every level that may be undone."""
        for pending in pendings:
            key = pending.record.id
            found: tuple[state.Snapshot, Pending | None] | None = None
            for level in reversed(self._levels):
                found = level.before.get(key, found)
                if found is not None:  # what an inner level found is what an outer one, which has not seen it, has
                    level.before[key] = found
            for level in self._levels:
                if key not in level.before:
                    level.before[key] = (state.snapshot(pending.record), replace(pending))

    def _mark(self, savepoint: Callable[[], str]) -> None:
        """Give every inner level that has none a point to go back to, before anything is written."""
        for number, level in enumerate(self._levels[1:], 1):
            if level.savepoint is None:
                level.savepoint = savepoint()
                outer = [around.unwritten for around in self._levels[:number]]
                level.at_savepoint = [Unwritten([*one.sealed], [*one.work]) for one in outer]
                level.written_before = frozenset(self._written)

    def _has_written(self, pending: Pending, append: Append, stored: Written) -> None:
        """Make a record the version just written."""
        if stored.append.id != append.id and append.id in self._records:
            # a fork of a run takes the records of the run it repeats
            self._records[stored.append.id] = self._records.pop(append.id)
            self._pending[stored.append.id] = self._pending.pop(append.id)
        state.bind(pending.record, append, stored)
        self._written.add(stored.append.id)
        self._restart(pending)

    def _has_sent_all(self) -> None:
        """Forget finished versions and work that are written now."""
        for level in self._levels:
            level.unwritten.work = []
            level.unwritten.sealed = [
                (pending, append) for pending, append in level.unwritten.sealed if append.id in self._held
            ]

    def _restart(self, pending: Pending) -> None:
        pending.delete = pending.restore = False
        pending.reason = None
        called = [level.called for level in self._levels if level.called is not None]
        pending.calls = tuple(method for record_id, method in called if record_id == pending.record.id)

    # -- levels

    def enter(self, reason: str | None, default_reason: str | None) -> None:
        """Open a level of nesting."""
        self._levels.append(Level(reason, default_reason))

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._levels)

    @property
    def is_outermost(self) -> bool:
        """Whether leaving now ends the scope."""
        return self.depth == 1

    def on_undo(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the level that is open now, or one around it, is undone."""
        self._levels[-1].undo.append(undo)

    def on_end(self, then: Callable[[], object]) -> None:
        """Call `then` when the outermost level has ended well, unless this one, or one around it, is undone."""
        self._levels[-1].then.append(then)

    def _merge_level(self) -> None:
        """Make what the innermost level did a part of the one around it."""
        outer, inner = self._levels[-2:]
        for record_id, before in inner.before.items():
            outer.before.setdefault(record_id, before)
        outer.undo += inner.undo
        outer.then += inner.then
        outer.unwritten.sealed += inner.unwritten.sealed
        outer.unwritten.work += inner.unwritten.work

    def _undo_changes(self) -> None:
        """Make the records of the innermost level what they were, and what is to be written too."""
        level = self._levels[-1]
        level.then.clear()
        for undo in reversed(level.undo):
            undo()
        if level.savepoint is not None:
            self._written = set(level.written_before)
            for around, unwritten in zip(self._levels, level.at_savepoint, strict=False):
                around.unwritten = unwritten
        for record_id, (snapshot, pending) in level.before.items():
            state.restore(snapshot)
            if pending is not None:
                self._pending[record_id] = pending
            elif snapshot.record.is_stored:
                self._pending.pop(record_id, None)
            else:
                self._forget(snapshot.record)  # an inner level made it

    def _forget(self, record: Identified) -> None:
        self._pending.pop(record.id, None)
        self._held.discard(record.id)
        self._records.pop(record.id, None)
        state.set_scope(record, None)
