"""Scopes: the stretch of code whose changes become one version per record and one transaction.

Owns the identity map and when what is changed is written, committed or undone; what that is, is in `changes`. A scope
belongs to the task that opened it, by `editing`. Knows the store only through its port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.errors import ScopeError
from eventic_core.records import conflicts, state
from eventic_core.records.blocking import current_task, task_label
from eventic_core.records.changes import Changes
from eventic_core.records.port import StaleWrite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventic_core.records.identity import Identified
    from eventic_core.records.level import Pending
    from eventic_core.records.port import Append, Store, Transaction

_MERGE_ATTEMPTS = 100
"""Each merge that fails again means another writer got through; this many in a row is not contention but a bug."""


class Scope(Changes):
    """The open scope of one task; made and ended by `edit_scope` and `unit_of_work`."""

    def __init__(self, store: Store, open_transaction: Callable[[], Transaction] | None = None) -> None:
        super().__init__(store.max_record_bytes)
        self.task = current_task()
        self.closed = False
        self.retried = False
        self.ended: Sequence[Callable[[], object]] = ()
        """What to call when nothing of the scope is open any more; see `on_end`."""
        self._store = store
        self._own_transaction = open_transaction is None
        self._open_transaction = open_transaction or store.begin
        self._transaction: Transaction | None = None

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
        pending = self._change(record)
        for name, value in kind.items():
            setattr(pending, name, value)

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

    @property
    def transaction(self) -> Transaction:
        """The scope's transaction, opened when first asked for."""
        if self._transaction is None:
            self._transaction = self._open_transaction()
        return self._transaction

    def read_transaction(self) -> Transaction | None:
        """Give what reads in this scope must join: its transaction, if it has written or holds one."""
        return self._transaction

    # -- writing

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
        self._mark(transaction.savepoint)
        return transaction

    def _write(self, batch: list[tuple[Pending, Append]], transaction: Transaction | None) -> None:
        for _ in range(_MERGE_ATTEMPTS):
            work = self._work
            if not batch:
                if work:
                    self._store.enqueue(work, transaction)
                self._has_sent_all()
                return
            self._remember(pending for pending, _append in batch)
            try:
                written = self._store.append([append for _pending, append in batch], transaction, work=work)
            except StaleWrite as stale:
                batch = self._merged(batch, transaction, stale)
                continue
            self._has_sent_all()
            for (pending, append), stored in zip(batch, written, strict=True):
                self._has_written(pending, append, stored)
            return
        message = f"Gave up merging after {_MERGE_ATTEMPTS} attempts; nothing was stored."
        raise ScopeError(message)

    def _merged(
        self, batch: list[tuple[Pending, Append]], transaction: Transaction | None, stale: StaleWrite
    ) -> list[tuple[Pending, Append]]:
        """Give what to write in place of what the store refused."""
        if self._sealed:
            raise conflicts.of_sealed(self._store, [append for _, append in batch], transaction) from stale
        records = [pending.record for pending, _append in batch]
        if self.retried and all(record.__eventic__.merge is None for record in records):
            raise stale  # to be run again at once: who changed what is of no interest
        conflicts.resolve(self._store, records, transaction, stale)
        return self._appends()

    # -- the end

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
            ended = self._levels.pop()
            if not self._levels:
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
            before = [snapshot for snapshot, _pending in self._levels[0].before.values()]
            undone = self._levels[0].undo

            def undo() -> None:
                for snapshot in before:
                    state.restore(snapshot)
                for also in reversed(undone):
                    also()

            self._transaction.on_rollback(undo)

    def _undo_level(self) -> None:
        self._undo_changes()
        if self._transaction is None:
            return
        if not self.is_outermost:
            savepoint = self._levels[-1].savepoint
            if savepoint is not None:
                self._transaction.rollback_to(savepoint)
        elif self._own_transaction:
            self._transaction.rollback()

    def _close(self) -> None:
        self.closed = True
        for record in self._records.values():
            state.set_scope(record, None)
