"""The work of handlers: a record's next versions, one after the other, each in a transaction that notes it is done.

Whatever wakes it and however often: a version counts as handled when the row in `handled` says so, and that row commits
with what the handler wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.errors import NotRegistered, RecordNotFound, RemoteError, VersionConflict
from eventic_core.records import state
from eventic_core.records.editing import edit_scope
from eventic_core.records.ids import new_id
from eventic_core.records.port import OwnershipLost, StaleWrite
from eventic_core.records.record_class import find_class
from eventic_core.records.stamp import acting
from eventic_core.runtime import codec, counts, handlers, tracing
from eventic_core.runtime.finishing import Finish, Interrupted, run_in_transaction
from eventic_core.runtime.functions import idempotent
from eventic_core.store.handlers import handle_work, matches
from eventic_core.store.progress import BATCH_VERSIONS
from eventic_core.store.work import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from eventic_core.records.port import StoredVersion
    from eventic_core.runtime.adapter import Claimed
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

Invoke = Callable[[Callable[..., Any], Any], Any]
"""Calls a function with a record, awaiting it if it is async."""

_log = logging.getLogger("eventic")

GROUP_RECORDS = 100
"""New records whose handlers share a transaction after a bulk creation."""
MOST_CRASHES = 5
"""Times a worker may die over work before that is set aside; the last ones it runs alone among its like."""
_CONFLICTS = 10


def record_class(class_type: str) -> type[Any]:
    """Give the class of a record to handle.

    Raises:
        NotRegistered: This process has not defined it.
    """
    cls = find_class(class_type)
    if cls is None:
        message = f"No record class {class_type!r} is defined in this process: import its module in the worker."
        raise NotRegistered(message)
    return cls


class Handling:
    """The work of one claimed run: some versions of a record, or some new records, for one handler."""

    def __init__(
        self, store: PostgresStore, claimed: Claimed, values: dict[str, Any], invoke: Invoke, *, deaths: int
    ) -> None:
        self._store = store
        self._claimed = claimed
        self._values = values
        self._invoke = invoke
        self._handler = handlers.find(values["handler"])
        self._cls = record_class(values["class"])
        self._killed_workers = deaths >= MOST_CRASHES
        self._deaths = deaths

    def run(self) -> None:
        """Do the work; its outcome is stored when this returns.

        Raises:
            OwnershipLost: Somebody else took it over.
            Interrupted: The connection was lost; the work is to be done again.
        """
        if "letter" in self._values:
            self._retry_letter(UUID(self._values["letter"]))
        elif "records" in self._values:
            self._handle_new([UUID(record) for record in self._values["records"]])
        else:
            self._drain(UUID(self._values["record"]), last_of_run=True)

    # -- one record

    def _drain(self, record_id: UUID, *, last_of_run: bool) -> None:
        """Handle the record's versions from the last handled one on, in order."""
        since = self._store.handlers.since(self._handler.name)
        while True:
            found = self._store.progress.unhandled(self._handler.name, record_id, since)
            more = len(found.versions) == BATCH_VERSIONS
            if found.waits or not found.versions:
                break
            wanted = [version for version in found.versions if self._wants(version)]
            done = found.last
            for version in wanted:
                last = last_of_run and not more and version is wanted[-1]
                progress = _Progress(self, version, before=done, complete=last)
                attempts = found.attempts if version is wanted[0] else 0
                try:
                    handled = self._handle(version, progress, attempts + 1, complete_anyway=last_of_run)
                except _Overtaken:
                    more = True
                    break
                if not handled:
                    return
                done = version.version
            else:
                if wanted and last_of_run and not more:
                    return
                to = found.versions[-1].version
                self._store.progress.advance(self._handler.name, record_id, before=done, to=to)
            if not more:
                break
        if last_of_run:
            self._complete(None)

    def _handle(self, version: StoredVersion, progress: _Progress, attempt: int, *, complete_anyway: bool) -> bool:
        """Handle one version; tells whether the next one's turn has come: it is handled, or set aside."""
        if self._killed_workers:
            self._killed_workers = False
            self._set_aside(version, progress, attempt, self._death())
            return True
        tracing.correlate(version.stamp.correlation_id)
        error = self._attempt(version, progress, attempt)
        if error is None:
            return True
        if attempt >= self._handler.retry.max_attempts:
            self._set_aside(version, progress, attempt, error)
            return True
        self._put_off(version, progress, attempt, error, complete_anyway=complete_anyway)
        return False

    def _death(self) -> RemoteError:
        return RemoteError(f"The worker died {self._deaths} times over this version.", "worker")

    def _wants(self, version: StoredVersion) -> bool:
        return any(
            entry.handler == self._handler.name and matches(entry, version)
            for entry in self._store.handlers.of_class(version.class_type)
        )

    def _attempt(self, version: StoredVersion, finish: Finish, number: int = 1) -> Exception | None:
        """Call the handler for one version; gives its error."""
        for _ in range(_CONFLICTS):
            try:
                run_in_transaction(
                    self._store, lambda: self.call(version, number), finish, run_id=self._claimed.run_id, step_id=None
                )
            except (VersionConflict, StaleWrite) as error:  # of what the handler wrote: nothing is wrong with it
                conflict: Exception = error
                counts.CONFLICTS.add("handler")
            except (OwnershipLost, Interrupted, _Overtaken):
                raise
            except Exception as error:  # noqa: BLE001 - the handler's own, kept with the dead letter
                counts.ATTEMPTS.add("handler", "failed")
                return error
            else:
                counts.ATTEMPTS.add("handler", "done")
                return None
        counts.ATTEMPTS.add("handler", "failed")
        return conflict

    def call(self, version: StoredVersion, attempt: int = 1) -> None:
        """Call the handler with the record as it was at a version."""
        record = state.from_row(self._cls, version)
        stamp = version.stamp
        with ExitStack() as stack:
            stack.enter_context(acting(actor=stamp.actor, correlation_id=stamp.correlation_id))
            stack.enter_context(idempotent(f"{self._handler.name}:{version.id}:{version.version}"))
            stack.enter_context(self._span(version, attempt))
            stack.enter_context(edit_scope(default_reason=self._handler.name))
            self._invoke(self._handler.function, record)

    def _span(self, version: StoredVersion, attempt: int) -> AbstractContextManager[object]:
        return tracing.span(
            "handler",
            self._handler.name,
            run__id=self._claimed.run_id,
            record__id=version.id,
            record__version=version.version,
            record__class=version.class_type,
            attempt=attempt,
        )

    def _set_aside(self, version: StoredVersion, progress: _Progress, attempts: int, error: Exception) -> None:
        """Make a version a dead letter, and let the next one have its turn."""
        encoded = codec.encode_error(error)
        with self._store.transaction() as tx:
            self._store.progress.set_aside(self._handler.name, version, attempts=attempts, error=encoded, tx=tx)
            progress.write(tx)
        counts.DEAD_LETTERS.add(self._handler.name)
        what = self._described(version)
        _log.error("%s: set aside after %s attempts", what, attempts, extra=self._extra(version), exc_info=error)

    def _put_off(
        self, version: StoredVersion, progress: _Progress, attempts: int, error: Exception, *, complete_anyway: bool
    ) -> None:
        """Have a version, and those after it, handled later."""
        with self._store.transaction() as tx:
            self._try_again(version, progress.before, attempts, tx)
            if complete_anyway:
                self._complete(tx)
        counts.RETRIES.add("handler")
        what = self._described(version)
        _log.warning("%s: attempt %s failed: %r", what, attempts, error, extra=self._extra(version))

    def _described(self, version: StoredVersion) -> str:
        return f"handler {self._handler.name}, version {version.version} of {version.class_type} {version.id}"

    def _extra(self, version: StoredVersion) -> dict[str, str]:
        return {"action": "handler_failed", "handler": self._handler.name, "record": str(version.id)}

    def _try_again(self, version: StoredVersion, last: int, attempts: int, tx: PostgresTransaction) -> None:
        delay = self._handler.retry.delay_after(attempts)
        self._store.progress.attempted(
            self._handler.name, version.id, last=last, attempts=attempts, due_seconds=delay, tx=tx
        )
        work = handle_work(self._handler.name, version.class_type, version.id, version.version, again=new_id().hex)
        self._store.enqueue([work._replace(delay_seconds=max(delay, 0.001))], tx)

    def _complete(self, tx: PostgresTransaction | None) -> None:
        outcome = Outcome(self._claimed.run_id, self._claimed.owner, "SUCCESS", "null", None)
        if not self._store.work.complete(outcome, tx):
            raise OwnershipLost(self._claimed.run_id)

    # -- many new records

    def _handle_new(self, ids: Sequence[UUID]) -> None:
        rows = self._store.progress.unhandled_new(self._handler.name, ids)
        for first in range(0, len(rows), GROUP_RECORDS):
            self._handle_group(rows[first : first + GROUP_RECORDS])
        self._complete(None)

    def _handle_group(self, rows: Sequence[StoredVersion]) -> None:
        """Handle several new records in one transaction; those that fail, and all if it is refused, by themselves."""
        alone = list(rows) if self._deaths else []  # one of them may have killed the worker: find out which
        group = _Group(self, [row for row in rows if row not in alone])

        def body() -> None:
            for row in group.rows:
                try:
                    with edit_scope():
                        self.call(row)
                except Exception:  # noqa: BLE001 - it comes again below, by itself
                    alone.append(row)

        try:
            if group.rows:
                group.failed = alone
                run_in_transaction(self._store, body, group, run_id=self._claimed.run_id, step_id=None)
        except (VersionConflict, StaleWrite, _Overtaken):
            alone = list(group.rows)
        for row in alone:
            self._drain(row.id, last_of_run=False)

    def advance_group(self, rows: Sequence[StoredVersion], tx: PostgresTransaction | None) -> None:
        """Note that the handler is done with new records, in the transaction of what it wrote for them."""
        with self._store.transaction(tx) as own:
            if not self._store.progress.advance_new(self._handler.name, [row.id for row in rows], own):
                raise _Overtaken

    # -- a dead letter

    def _retry_letter(self, letter_id: UUID) -> None:
        error = self._death() if self._killed_workers else self._try_letter(letter_id)
        if error is None:
            return
        with self._store.transaction() as tx:
            self._store.progress.reopen(letter_id, error=codec.encode_error(error), tx=tx)
            self._complete(tx)
        _log.error("dead letter %s failed again", letter_id, extra={"action": "letter_failed"}, exc_info=error)

    def _try_letter(self, letter_id: UUID) -> Exception | None:
        record_id, number = UUID(self._values["record"]), self._values["version"]
        version = self._store.version(record_id, number)
        if version is None:
            return RecordNotFound(f"There is no version {number} of {self._cls.__name__} {record_id} any more.")
        return self._attempt(version, _Letter(self, letter_id))

    def settle(self, letter_id: UUID, tx: PostgresTransaction | None) -> None:
        """Note that a dead letter was handled, and complete the run."""
        with self._store.transaction(tx) as own:
            self._store.progress.settle(letter_id, before=["retried"], state="done", by=None, tx=own)
            self._complete(own)

    def advance(self, progress: _Progress, tx: PostgresTransaction | None) -> None:
        """Note that a version is done, and complete the run with the last one."""
        version = progress.version
        with self._store.transaction(tx) as own:
            moved = self._store.progress.advance(
                self._handler.name, version.id, before=progress.before, to=version.version, tx=own
            )
            if not moved:
                raise _Overtaken
            if progress.complete:
                self._complete(own)


class _Overtaken(Exception):
    """Another worker was quicker with a version: what it wrote stands, what we were to write must not."""


class _Progress(Finish):
    """One version done."""

    def __init__(self, handling: Handling, version: StoredVersion, *, before: int, complete: bool) -> None:
        super().__init__()
        self._handling = handling
        self.version = version
        self.before = before
        self.complete = complete

    def write(self, tx: PostgresTransaction | None) -> None:
        self._handling.advance(self, tx)


class _Group(Finish):
    """Several new records done."""

    def __init__(self, handling: Handling, rows: list[StoredVersion]) -> None:
        super().__init__()
        self._handling = handling
        self.rows = rows
        self.failed: list[StoredVersion] = []

    def write(self, tx: PostgresTransaction | None) -> None:
        done = [row for row in self.rows if row not in self.failed]
        if done:
            self._handling.advance_group(done, tx)


class _Letter(Finish):
    """A dead letter done."""

    def __init__(self, handling: Handling, letter_id: UUID) -> None:
        super().__init__()
        self._handling = handling
        self._letter_id = letter_id

    def write(self, tx: PostgresTransaction | None) -> None:
        self._handling.settle(self._letter_id, tx)
