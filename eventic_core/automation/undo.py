"""`run.undo()`: writes the inverse of what a run wrote, as new versions.

Owns the writing of a plan in chunks. Each chunk commits by itself and is held to the versions it was planned for, so
that an undo may be killed and called again. What is to be written is `undo_plan`'s.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from eventic_core.automation.run_changes import postgres_store, run_history
from eventic_core.automation.undo_plan import (
    Inverse,
    Tally,
    Touch,
    UndoConflict,
    UndoPlan,
    UndoReport,
    plan_undo,
)
from eventic_core.errors import Conflict, DuplicateKey, EventicError, ScopeError
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.port import StaleWrite, using_store
from eventic_core.records.scope import in_scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.automation.run import Run
    from eventic_core.records.port import Key

__all__ = ["Inverse", "Touch", "UndoConflict", "UndoPlan", "UndoReport", "plan_undo", "undo", "undo_async"]

_DEFERRED_RECORDS: Final = 5_000
"""Records that may exchange unique keys in one transaction."""
_ATTEMPTS: Final = 20
"""At a chunk of which others write a record each time between the reading and the writing."""


def undo(run: Run | UUID | str, *, dry_run: bool = False, force: bool = False, reason: str | None = None) -> UndoReport:
    """Give every record that a run wrote the values it had before, as new versions stamped `<run>:undo-<attempt>`.

    A record that the run created gets a tombstone, one that it deleted comes back, one that it changed gets the values
    of before its first change. The run, its batch executions and item executions stay as they are. Where somebody else
    wrote a record after the run's first version of it, the record is left alone and listed as a conflict.

    A record is held to the version it was planned for: if somebody writes it meanwhile, it is a conflict. The undo is
    done in chunks that commit one by one, so if it is interrupted, call it again: what is undone already needs nothing,
    and is not touched even if somebody has changed it since. Handlers see the new versions as any others.

    Args:
        run: The run, its id, or the workflow id of an undo (`UndoReport.workflow_id`), which is undone in turn.
        dry_run: Only say what would be done; see `plan_undo` for what cannot be foreseen.
        force: Restore records that others wrote too, as they were before the run.
        reason: Stamped on the versions; the default is `undo of run <id>`.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: A text is no id of a run or an undo.
        InvalidStateError: The run is not finished.
        NotRegistered: It wrote records of classes that this process does not know; nothing was written.
        ScopeError: In an edit, a unit of work or a transaction: it commits by itself.
        BlockingInLoop: In a running event loop; await `undo_async` there.
        StoreUnavailable: Postgres does not answer; the chunks before are written.
    """
    refuse_in_loop("undo()", "undo_async()")
    if in_scope():
        message = (
            "undo() commits as it goes, so it cannot be part of a unit of work: call it outside. Nothing was written."
        )
        raise ScopeError(message)
    with using_store(None):
        plan = plan_undo(run, force=force, reason=reason)
        return plan.report() if dry_run else _Undo(plan).run()


async def undo_async(
    run: Run | UUID | str, *, dry_run: bool = False, force: bool = False, reason: str | None = None
) -> UndoReport:
    """Undo a run without blocking the event loop; see `undo`."""
    return await in_thread(undo, run, dry_run=dry_run, force=force, reason=reason)


class _Undo:
    """One plan being carried out."""

    def __init__(self, plan: UndoPlan) -> None:
        self._plan = plan
        self._tally = Tally()
        self._history = run_history()
        self._store = postgres_store()

    def run(self) -> UndoReport:
        """Write everything, then once more what was in the way of each other."""
        deferred: list[Inverse] = []
        for page in self._plan.pages():
            deferred += self._write(page)
        while deferred:
            waiting, left = iter(deferred), []
            while chunk := list(islice(waiting, _DEFERRED_RECORDS)):
                left += self._write(self._plan.again(chunk))
            if len(left) == len(deferred):
                break
            deferred = left
        for inverse in deferred:
            self._tally.add(inverse)
        return self._tally.report(self._plan.workflow_id, dry_run=False)

    def _write(self, inverses: Sequence[Inverse]) -> list[Inverse]:
        """Write a chunk, and count what was done; gives those that something stood in the way of, to be tried again."""
        deferred: list[Inverse] = []
        ready: list[Inverse] = []
        for _ in range(_ATTEMPTS):
            ready = self._ready(inverses, deferred)
            try:
                self._append(ready)
            except DuplicateKey as error:
                blocked = self._blocked(ready)
                deferred += [inverse.refused(error.message) for inverse in ready if inverse.record_id in blocked]
                ready = [inverse for inverse in ready if inverse.record_id not in blocked]
            except StaleWrite:
                pass
            except Conflict as error:
                if type(error) is not Conflict:  # which is what a deadlock is
                    raise
            else:
                for inverse in ready:
                    self._tally.add(inverse)
                return deferred
            inverses = self._plan.again(ready)
        problem = f"Others wrote it, or records beside it, {_ATTEMPTS} times while it was to be written. Undo it again."
        return deferred + [inverse.refused(problem) for inverse in ready]

    def _ready(self, inverses: Sequence[Inverse], deferred: list[Inverse]) -> list[Inverse]:
        """Give those that can be written; count those with nothing to write, defer those their class refuses."""
        ready = []
        for inverse in inverses:
            if inverse.record is None or inverse.append is None:
                self._tally.add(inverse)
                continue
            try:
                if not inverse.append.tombstone:
                    inverse.record._before_store()  # noqa: SLF001 - what a scope asks before it writes a version
            except EventicError as error:
                deferred.append(inverse.refused(error.message))
            else:
                ready.append(inverse)
        return ready

    def _append(self, ready: Sequence[Inverse]) -> None:
        """Write all or none. Records may take unique keys from each other, so all are freed before any is taken."""
        appends = [inverse.append for inverse in ready if inverse.append is not None]
        keys = [(append.id, key) for append in appends for key in append.keys]
        if not appends:
            return
        if all(key.value is None for _, key in keys):
            self._store.append(appends)
            return
        with self._store.transaction() as transaction:
            self._history.free(transaction, keys)
            self._store.append(appends, transaction)

    def _blocked(self, ready: Sequence[Inverse]) -> set[UUID]:
        """Find the records that want a unique key which none of the others is about to give up."""
        wanted = {inverse.record_id: inverse.append.keys for inverse in ready if inverse.append is not None}
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
