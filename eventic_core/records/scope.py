"""Scopes: the stretch of code whose changes become one version per record and one transaction.

Owns the identity map, the pending changes, flushing, and exact restoration after an error. A bare assignment, an edit
block, an evented method, a unit of work and a transaction are all a scope; nested ones join. A scope belongs to
the task that opened it. Knows the store only through its port.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from eventic_core.errors import ScopeError
from eventic_core.records import conflicts, state
from eventic_core.records.blocking import current_task, in_thread, refuse_in_loop, task_label
from eventic_core.records.port import StaleWrite, current_store
from eventic_core.records.stamp import current_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from uuid import UUID

    from eventic_core.records.identity import Identified
    from eventic_core.records.port import Append, Store, Transaction, Work, Written
    from eventic_core.records.stamp import Origin

_MERGE_ATTEMPTS = 100
"""Each merge that fails again means another writer got through; this many in a row is not contention but a bug."""


@dataclass(slots=True)
class _Pending:
    """A record changed in this scope, and how."""

    record: Identified
    reason: str | None
    origin: Origin
    delete: bool = False
    restore: bool = False
    calls: tuple[str, ...] = ()


@dataclass(slots=True)
class _Frame:
    """One level of nesting: what its records were when it first touched them."""

    reason: str | None = None
    default_reason: str | None = None
    called: tuple[UUID, str] | None = None
    work_before: int = 0
    sealed_before: int = 0
    before: dict[UUID, tuple[state.Snapshot, _Pending | None]] = field(default_factory=dict)
    savepoint: str | None = None
    undo: list[Callable[[], object]] = field(default_factory=list)
    then: list[Callable[[], object]] = field(default_factory=list)


class Scope:
    """The open scope of one task; made and ended by `edit_scope` and `unit_of_work`."""

    def __init__(self, store: Store, open_transaction: Callable[[], Transaction] | None = None) -> None:
        self.task = current_task()
        self.closed = False
        self.retried = False
        self.holding = False
        """Whether records made from now on wait for `release`, for a unit of work with repositories."""
        self.ended: Sequence[Callable[[], object]] = ()
        """What to call when nothing of the scope is open any more; see `on_end`."""
        self._held: set[UUID] = set()
        self._written: set[UUID] = set()
        self._store = store
        self._own_transaction = open_transaction is None
        self._open_transaction = open_transaction or store.begin
        self._transaction: Transaction | None = None
        self._records: dict[UUID, Identified] = {}
        self._pending: dict[UUID, _Pending] = {}
        self._sealed: list[tuple[_Pending, Append]] = []
        self._work: list[Work] = []
        self._frames: list[_Frame] = []

    # -- what the records in it ask for

    def adopt(self, record: Identified) -> None:
        """Make `record` the scope's object for its id.

        Raises:
            ScopeError: Another object for the id is in the scope, or another task's scope holds this one.
        """
        known = self._records.get(record.id)
        if known is record:
            return
        if known is not None:
            message = (
                f"Two objects for {type(record).__name__} {record.id} in one scope: use the one that this scope loaded "
                "first (hydrate returns it)."
            )
            raise ScopeError(message)
        holder = state.scope_of(record)
        if holder is not None and not holder.closed:
            message = (
                f"{type(record).__name__} {record.id} is being edited in the scope of {task_label(holder.task)}; "
                "hydrate it again in this one."
            )
            raise ScopeError(message)
        self._records[record.id] = record
        state.set_scope(record, self)

    def enlist(self, record: Identified, **kind: bool) -> None:
        """Make `record` part of the version(s) this scope writes, before it is changed.

        Raises:
            ChangedOutsideScope: It was changed in place before, where nobody would store it.
        """
        self.adopt(record)
        frame = self._frames[-1]
        pending = self._pending.get(record.id)
        if pending is None and record.is_stored:
            state.refuse_drift(record)
        if record.id not in frame.before:
            frame.before[record.id] = (state.snapshot(record), replace(pending) if pending else None)
        if pending is None:
            pending = self._pending[record.id] = _Pending(record, self._reason(), current_origin())
            if not record.is_stored:  # from here on an inner level may have to undo its changes
                state.guard_containers(record)
                if self.holding:
                    self._held.add(record.id)
        elif frame.reason or pending.reason is None:  # given for this change, or the first since the last flush
            pending.reason = self._reason()
        pending.origin = current_origin()  # of the change, whoever ends the scope
        for name, value in kind.items():
            setattr(pending, name, value)

    def note_call(self, record: Identified, method: str) -> None:
        """Make a method's call part of what is known of the versions it makes of its record."""
        self._frames[-1].called = (record.id, method)
        pending = self._pending[record.id]
        if method not in pending.calls:
            pending.calls = (*pending.calls, method)

    def move(self, record: Identified, to: object) -> None:
        """Have a record's state changed next, each move as a version of its own.

        Raises:
            InvalidStateError: The state it has does not allow the move; nothing was changed.
        """
        states = record.__eventic__.states
        assert states is not None
        if str(getattr(record, states.field)) != str(to):
            self.seal_move(record)
        state.check_state(record, to, self._pending[record.id].calls)

    def seal_move(self, record: Identified) -> None:
        """Make what is pending of a record a version of its own if it has moved its state, or is new."""
        states, pending = record.__eventic__.states, self._pending.get(record.id)
        if states is None or pending is None or str(getattr(record, states.field)) == state.stored_state(record):
            return
        append = self._next(pending)
        assert append is not None
        self._sealed.append((pending, append))
        state.seal(record, append)
        self._restart(pending)

    def release(self, record: Identified | None = None) -> None:
        """Have a new record that was held back, or all of them, written at the next flush."""
        self._held -= self._held if record is None else {record.id}

    def restamp(self, record: Identified) -> None:
        """Make what is not written yet of a record a change of who acts now."""
        origin, pending = current_origin(), self._pending.get(record.id)
        if pending is not None:
            pending.origin = origin
        self._sealed = [
            (of, append._replace(actor=origin.actor) if append.id == record.id else append)
            for of, append in self._sealed
        ]

    def withdraw(self, record: Identified) -> None:
        """Take a record of which nothing is written yet out of the scope: a new one is a draft again, as it was made.

        Raises:
            ScopeError: A version of it is written in the open transaction.
        """
        if record.id in self._written:
            message = f"{type(record).__name__} {record.id} is written in this transaction already: delete it instead."
            raise ScopeError(message)
        found = [frame.before.pop(record.id) for frame in self._frames if record.id in frame.before]
        self._keep_sealed(lambda append: append.id != record.id)
        self._pending.pop(record.id, None)
        self._held.discard(record.id)
        self._records.pop(record.id, None)
        state.set_scope(record, None)
        if found:
            state.restore(found[0][0])

    def enqueue(self, work: Work) -> None:
        """Enqueue background work in the scope's transaction, or not at all."""
        self._work.append(work)

    def _reason(self) -> str | None:
        """The innermost reason given, else `acting`'s, else the innermost default."""
        explicit = next((frame.reason for frame in reversed(self._frames) if frame.reason), None)
        default = next((frame.default_reason for frame in reversed(self._frames) if frame.default_reason), None)
        return explicit or current_origin().reason or default

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
        sealed = any(append.id == record_id and append.version == 0 for _, append in self._sealed)
        return record_id in self._pending and (sealed or not self._pending[record_id].record.is_stored)

    def is_deleting(self, record_id: UUID) -> bool:
        """Tell whether the record is to become a tombstone at the next flush."""
        pending = self._pending.get(record_id)
        return pending is not None and pending.delete

    @property
    def transaction(self) -> Transaction:
        """The scope's transaction, opened when first asked for."""
        if self._transaction is None:
            self._transaction = self._open_transaction()
        return self._transaction

    def read_transaction(self) -> Transaction | None:
        """Give what reads in this scope must join: its transaction, if it has written or holds one."""
        return self._transaction

    # -- flushing

    def flush(self) -> None:
        """Write what is pending into the scope's transaction, so that reads see it."""
        batch = self._appends()
        if batch or self._work:
            self._write(batch, self._marked_transaction())

    def direct_transaction(self) -> Transaction:
        """Give the transaction for writes beside the scope's own, after those; undone with the level that is open."""
        self.flush()
        return self._marked_transaction()

    def _marked_transaction(self) -> Transaction:
        """Give the transaction, in which every inner level now has a point to go back to."""
        transaction = self.transaction
        for frame in self._frames[1:]:
            frame.savepoint = frame.savepoint or transaction.savepoint()
        return transaction

    def _appends(self) -> list[tuple[_Pending, Append]]:
        found = [(pending, append) for pending, append in self._sealed if append.id not in self._held]
        for pending in list(self._pending.values()):
            append = None if pending.record.id in self._held else self._next(pending)
            if append is not None:
                found.append((pending, append))
        return found

    def _next(self, pending: _Pending) -> Append | None:
        append = state.next_version(
            pending.record,
            pending.origin,
            reason=pending.reason,
            delete=pending.delete,
            restore=pending.restore,
            max_bytes=self._store.max_record_bytes,
            calls=pending.calls,
        )
        if append is not None and not append.tombstone:
            pending.record._before_store()
        return append

    def _write(self, batch: list[tuple[_Pending, Append]], transaction: Transaction | None) -> None:
        for _ in range(_MERGE_ATTEMPTS):
            if not batch:
                self._send_work(transaction)
                return
            for pending, _append in batch:
                self._remember(pending)
            appends = [append for _pending, append in batch]
            try:
                written = self._store.append(appends, transaction, work=self._work)
            except StaleWrite as stale:
                if any(append.id not in self._held for _, append in self._sealed):
                    raise conflicts.of_sealed(self._store, [append for _, append in batch], transaction) from stale
                if self.retried and all(pending.record.__eventic__.merge is None for pending, _append in batch):
                    raise  # to be run again at once: who changed what is of no interest
                conflicts.resolve(self._store, [pending.record for pending, _append in batch], transaction, stale)
                batch = self._appends()
                continue
            self._forget_work()
            self._forget_sealed()
            for (pending, append), stored in zip(batch, written, strict=True):
                self._bind(pending, append, stored)
            return
        message = f"Gave up merging after {_MERGE_ATTEMPTS} attempts; nothing was stored."
        raise ScopeError(message)

    def _bind(self, pending: _Pending, append: Append, stored: Written) -> None:
        if (
            stored.append.id != append.id and append.id in self._records
        ):  # a fork of a run takes the records of the run it repeats
            self._records[stored.append.id] = self._records.pop(append.id)
            self._pending[stored.append.id] = self._pending.pop(append.id)
        state.bind(pending.record, append, stored)
        self._written.add(stored.append.id)
        self._restart(pending)

    def _restart(self, pending: _Pending) -> None:
        pending.delete = pending.restore = False
        pending.reason = None
        called = [frame.called for frame in self._frames if frame.called is not None]
        pending.calls = tuple(method for record_id, method in called if record_id == pending.record.id)

    def _send_work(self, transaction: Transaction | None) -> None:
        if self._work:
            self._store.enqueue(self._work, transaction)
            self._forget_work()

    def _forget_sealed(self) -> None:
        self._keep_sealed(lambda append: append.id in self._held)

    def _keep_sealed(self, keep: Callable[[Append], bool]) -> None:
        if not self._sealed:
            return
        for frame in self._frames:
            frame.sealed_before = sum(keep(append) for _, append in self._sealed[: frame.sealed_before])
        self._sealed = [found for found in self._sealed if keep(found[1])]

    def _forget_work(self) -> None:
        self._work = []
        for frame in self._frames:
            frame.work_before = 0

    def _remember(self, pending: _Pending) -> None:
        key = pending.record.id
        found: tuple[state.Snapshot, _Pending | None] | None = None
        for frame in reversed(self._frames):
            found = frame.before.get(key, found)
            if found is not None:  # what an inner level found is what an outer one, which has not seen it, would have
                frame.before[key] = found
        for frame in self._frames:
            if key not in frame.before:
                frame.before[key] = (state.snapshot(pending.record), replace(pending))

    # -- nesting and the end

    def enter(self, reason: str | None, default_reason: str | None) -> None:
        """Open a level of nesting."""
        work, sealed = len(self._work), len(self._sealed)
        self._frames.append(_Frame(reason, default_reason, work_before=work, sealed_before=sealed))

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._frames)

    def on_undo(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the level that is open now, or one around it, is undone."""
        self._frames[-1].undo.append(undo)

    def on_end(self, then: Callable[[], object]) -> None:
        """Call `then` when the outermost level has ended well, unless this one, or one around it, is undone."""
        self._frames[-1].then.append(then)

    @property
    def is_outermost(self) -> bool:
        """Whether leaving now ends the scope."""
        return len(self._frames) == 1

    @property
    def is_idle(self) -> bool:
        """Whether leaving needs no database."""
        return self._transaction is None and not self._pending and not self._work

    def leave(self, *, failed: bool) -> None:
        """Close a level: write and commit at the outermost, restore memory and table if it failed."""
        try:
            if failed:
                self._undo_level()
            elif self.is_outermost:
                self._finish()
            else:
                self._merge_level()
        except BaseException:
            if not failed:
                self._undo_level()
            raise
        finally:
            ended = self._frames.pop()
            if not self._frames:
                self.ended = ended.then
                self._close()

    def _finish(self) -> None:
        if self.is_idle:
            return
        self._write(self._appends(), self._transaction)
        if self._transaction is None:
            return
        if self._own_transaction:
            self._transaction.commit()
        else:
            before = [snapshot for snapshot, _pending in self._frames[0].before.values()]
            undone = self._frames[0].undo

            def undo() -> None:
                for snapshot in before:
                    state.restore(snapshot)
                for also in reversed(undone):
                    also()

            self._transaction.on_rollback(undo)

    def _merge_level(self) -> None:
        outer = self._frames[-2]
        for record_id, before in self._frames[-1].before.items():
            outer.before.setdefault(record_id, before)
        outer.undo += self._frames[-1].undo
        outer.then += self._frames[-1].then

    def _undo_level(self) -> None:
        frame = self._frames[-1]
        frame.then.clear()
        for undo in reversed(frame.undo):
            undo()
        del self._work[frame.work_before :]
        del self._sealed[frame.sealed_before :]
        for record_id, (snapshot, pending) in frame.before.items():
            state.restore(snapshot)
            if pending is not None:
                self._pending[record_id] = pending
                continue
            self._pending.pop(record_id, None)
            if not snapshot.record.is_stored:
                self._held.discard(record_id)
                self._written.discard(record_id)
                self._records.pop(record_id, None)  # gone if an inner level, which made it, was undone
                state.set_scope(snapshot.record, None)
        if self._transaction is None:
            return
        if not self.is_outermost:
            if frame.savepoint is not None:
                self._transaction.rollback_to(frame.savepoint)
        elif self._own_transaction:
            self._transaction.rollback()

    def _close(self) -> None:
        self.closed = True
        for record in self._records.values():
            state.set_scope(record, None)


_scope: ContextVar[Scope | None] = ContextVar("eventic_scope", default=None)


def current_scope() -> Scope | None:
    """Give the open scope of this task, if there is one."""
    scope = _scope.get()
    return scope if scope is not None and not scope.closed and scope.task == current_task() else None


def in_scope() -> bool:
    """Tell whether this task has an open scope."""
    return current_scope() is not None


class edit_scope:  # noqa: N801 - a context manager, used like a function
    """Open a scope, or join the task's open one; works with `with` and `async with`.

    Args:
        record: Enlisted at once, so that earlier in-place changes are found.
        reason: Stamped on versions that change in this level; beats `acting(reason=)`.
        default_reason: Stamped when nobody gave a reason.
        call: What the user called, for the error in an event loop.
        instead: What to await instead.
        method: The evented method of `record` that is the block.
        retried: Whether the caller runs the block again after a conflict, which then is a bare `StaleWrite`.
        open_transaction: Gives the transaction to write in; the caller ends it. Default: the store's own.

    Raises:
        BlockingInLoop: `with` in a running event loop, where leaving would write.
        VersionConflict: On leaving; see `Scope.leave`. Memory is as it was on entering.
    """

    def __init__(
        self,
        record: Identified | None = None,
        *,
        reason: str | None = None,
        default_reason: str | None = None,
        call: str | None = None,
        instead: str = "the same with `async with`",
        retried: bool = False,
        method: str | None = None,
        open_transaction: Callable[[], Transaction] | None = None,
    ) -> None:
        self._record = record
        self._reasons = (reason, default_reason)
        self._labels = (call, instead)
        self._open_transaction = open_transaction
        self._retried = retried
        self._method = method
        self._scope: Scope | None = None
        self._token: Any = None

    def _enter(self, *, blocking: bool) -> Scope:
        scope = current_scope()
        if scope is None:
            if blocking:
                call, instead = self._labels
                refuse_in_loop(call or f"{self._reasons[1] or 'an edit'}()", instead)
            scope = Scope(current_store(), self._open_transaction)
            scope.retried = self._retried
            self._token = _scope.set(scope)
        elif self._open_transaction is not None:
            message = "A scope is open already: join the other transaction before opening it."
            raise ScopeError(message)
        self._scope = scope
        if self._record is not None and self._method is not None:
            scope.seal_move(self._record)
        scope.enter(*self._reasons)
        if self._record is not None:
            try:
                scope.enlist(self._record)
                if self._method is not None:
                    scope.note_call(self._record, self._method)
            except BaseException:
                self._leave(failed=True)
                self._reset()
                raise
        return scope

    def _leave(self, *, failed: bool) -> None:
        if self._scope is None or self._scope.closed:
            message = "The scope is closed already."
            raise ScopeError(message)
        self._scope.leave(failed=failed)

    def _reset(self) -> None:
        if self._token is not None:
            _scope.reset(self._token)
            self._token = None

    def __enter__(self) -> Scope:
        return self._enter(blocking=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        scope = self._scope
        try:
            self._leave(failed=kind is not None)
        finally:
            self._reset()
        for then in scope.ended if scope is not None else ():
            then()
        return False

    async def __aenter__(self) -> Scope:
        return self._enter(blocking=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        scope = self._scope
        try:
            if scope is not None and not scope.is_idle and (scope.is_outermost or kind is not None):
                await in_thread(self._leave, failed=kind is not None)
            else:
                self._leave(failed=kind is not None)
        finally:
            self._reset()
        for then in scope.ended if scope is not None else ():
            await in_thread(then)
        return False


def required_scope(call: str) -> Scope:
    """Give the open scope of this task.

    Raises:
        ScopeError: None is open.
    """
    scope = current_scope()
    if scope is None:
        message = f"{call} needs an open unit of work or transaction: call it inside `with Eventic.unit_of_work():`."
        raise ScopeError(message)
    return scope
