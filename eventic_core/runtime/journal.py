"""The steps of a run on record: what a repeated run finds done it does not do again.

Owns the one-statement way: the owner check, the versions, the step's row and the follow-up work commit together. The
other way, through DBOS's datasource, is `datasource`; both pass the same tests.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from eventic_core.errors import EventicError, Invalid, StoreUnavailable
from eventic_core.records.port import (
    AlreadyDone,
    Append,
    Checkpoint,
    OwnershipLost,
    StaleWrite,
    Written,
    using_store,
)
from eventic_core.runtime import codec
from eventic_core.runtime.calls import error_text, nondeterminism
from eventic_core.runtime.finishing import Finish, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from eventic_core.records.port import StoredVersion, Work
    from eventic_core.runtime.adapter import Position
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

T = TypeVar("T")
_reserved: ContextVar[list[int] | None] = ContextVar("eventic_reserved_step", default=None)
_log = logging.getLogger("eventic")

Pairs = list[tuple[UUID, int]]


class Journal(Protocol):
    """What a run's body asks for; each call is a step of the run."""

    store: PostgresStore
    run_id: str

    def write(self, name: str, appends: Sequence[Append], work: Sequence[Work]) -> list[Written]:
        """Write versions and the work they cause, or give what the run wrote the first time."""
        ...

    def enqueue(self, name: str, work: Callable[[int], Work]) -> Work:
        """Enqueue the work that is made of the step's number."""
        ...

    def read(self, name: str, read: Callable[[], Sequence[StoredVersion]]) -> list[StoredVersion]:
        """Read versions, or exactly those the run read the first time."""
        ...

    def value(self, name: str, compute: Callable[[], T]) -> T:
        """Compute a value, or give what it was the first time."""
        ...

    def transaction(self, name: str, attempt: Callable[[Finish, int], T]) -> T:
        """Let `attempt` run in one transaction that ends with the step's row, or give what it returned the first time.

        Args:
            name: The step's.
            attempt: Called with what ends the transaction and the step's number; again after a lost connection.
        """
        ...

    def new_id(self) -> UUID:
        """Make the id of a new record: the same one when the run is repeated."""
        ...

    def reserve(self) -> AbstractContextManager[object]:
        """Take the next step's number now, for the first call made inside the block, in whatever thread."""
        ...


class Numbers:
    """The numbers of a run's steps and the ids of the records its body makes, whoever puts the steps on record."""

    def __init__(self, store: PostgresStore, position: Position) -> None:
        self.store = store
        self.run_id = position.run_id
        self._next_step = position.next_step
        self._created_ms = 0
        self._last: int | None = None
        self._ids = itertools.count(1)  # counts once for each thread that asks

    def _next(self) -> int:
        reserved = _reserved.get()
        return reserved.pop() if reserved else self._next_step()

    @contextmanager
    def reserve(self) -> Iterator[None]:
        token = _reserved.set([self._next_step()])
        try:
            yield
        finally:
            _reserved.reset(token)

    def new_id(self) -> UUID:
        if self._last is None:
            self._look()
        return derived_id(self._created_ms, f"{self.run_id}/{next(self._ids)}")

    def _look(self) -> None:
        self._created_ms, self._last = patiently(lambda: self.store.work.last_step(self.run_id))


class StatementJournal(Numbers):
    """Checkpoints written by the statement that writes the records; no transaction, one round trip."""

    def __init__(self, store: PostgresStore, position: Position, lost: Callable[[str], BaseException]) -> None:
        super().__init__(store, position)
        self._owner = position.owner
        self._lost = lost

    def write(self, name: str, appends: Sequence[Append], work: Sequence[Work]) -> list[Written]:
        step = self._next()
        stamped = [append._replace(workflow_id=self.run_id, step_id=step) for append in appends]
        checkpoint = self._checkpoint(step, name, [[append.id, append.version] for append in appends])
        try:
            written = patiently(lambda: self.store.append(stamped, work=work, checkpoint=checkpoint))
        except AlreadyDone as done:
            return replayed(self.store, self._checked(step, name, done), appends, self.run_id, step)
        except OwnershipLost as error:
            raise self._lost(self.run_id) from error
        except StoreUnavailable:
            raise
        except (StaleWrite, EventicError) as error:
            self._note(step, name, error=error)
            raise
        return [Written(append, stored.stamp) for append, stored in zip(appends, written, strict=True)]

    def enqueue(self, name: str, work: Callable[[int], Work]) -> Work:
        step = self._next()
        made = work(step)
        try:
            patiently(lambda: self.store.enqueue([made], checkpoint=self._checkpoint(step, name, made.id)))
        except AlreadyDone as done:
            return made._replace(id=self._checked(step, name, done))
        except OwnershipLost as error:
            raise self._lost(self.run_id) from error
        return made

    def read(self, name: str, read: Callable[[], Sequence[StoredVersion]]) -> list[StoredVersion]:
        step = self._next()
        done = self._recorded(step)
        if done is not None:
            pairs = [(record, version) for record, version in self._checked(step, name, done)]
            return patiently(lambda: self.store.versions(pairs))
        try:
            rows = list(patiently(read))
        except Invalid as error:
            self._note(step, name, error=error)
            raise
        self._note(step, name, [[row.id, row.version] for row in rows])
        return rows

    def value(self, name: str, compute: Callable[[], T]) -> T:
        step = self._next()
        done = self._recorded(step)
        if done is not None:
            found: T = self._checked(step, name, done)
            return found
        try:
            result = patiently(compute)
        except StoreUnavailable:
            raise
        except Exception as error:
            self._note(step, name, error=error)
            raise
        self._note(step, name, result)
        return result

    def transaction(self, name: str, attempt: Callable[[Finish, int], T]) -> T:
        step = self._next()
        done = self._recorded(step)
        started_ms = now_ms()
        while True:
            if done is not None:
                found: T = self._checked(step, name, done)
                return found
            try:
                return attempt(_NoteStep(self, step, name, started_ms), step)
            except Interrupted as error:  # nothing is known of the attempt: look before doing it again
                _log.warning("step %s of %s is repeated: %s", step, self.run_id, error, extra={"action": "repeat"})
                done = patiently(lambda: self.store.work.step(self.run_id, step))
            except OwnershipLost as error:
                raise self._lost(self.run_id) from error
            except AlreadyDone as error:
                done = error
            except Exception as error:
                self._note(step, name, error=error)
                raise

    # -- the step's row

    def _checkpoint(self, step: int, name: str, output: Any, started_ms: int | None = None) -> Checkpoint:
        text = codec.dumps(output, f"what step {step} ({name}) gives")
        return Checkpoint(self.run_id, self._owner, step, name, text, started_ms or now_ms())

    def _recorded(self, step: int) -> AlreadyDone | None:
        if self._last is None:
            self._look()
        if step > (self._last or 0):
            return None
        return patiently(lambda: self.store.work.step(self.run_id, step))

    def _checked(self, step: int, name: str, done: AlreadyDone) -> Any:
        """Give a recorded step's output or raise its error, if it is the step that is asked for."""
        if done.name != name:
            raise nondeterminism(self.run_id, step, f"did {done.name!r}", f"does {name!r}")
        with using_store(None):  # a record in it is read as it was, which is not a step of its own
            if done.error is not None:
                raise codec.loads(done.error)
            return codec.loads(done.output or "null")

    def _note(self, step: int, name: str, output: Any = None, *, error: BaseException | None = None) -> None:
        """Record a step that wrote nothing."""
        checkpoint = self._checkpoint(step, name, output)
        try:
            if error is None:
                patiently(lambda: self.store.enqueue((), checkpoint=checkpoint))
            else:
                text = error_text(error)
                patiently(lambda: self.store.work.note_error(checkpoint, text))
        except AlreadyDone:
            return  # the reply to an earlier try was lost
        except OwnershipLost as lost:
            raise self._lost(self.run_id) from lost

    def finish(self, step: int, name: str, result: Any, started_ms: int, tx: PostgresTransaction | None) -> None:
        """Record a transaction's result in it."""
        checkpoint = self._checkpoint(step, name, result, started_ms)
        if tx is None:
            patiently(lambda: self.store.enqueue((), checkpoint=checkpoint))
        else:
            self.store.enqueue((), tx, checkpoint=checkpoint)


class _NoteStep(Finish):
    def __init__(self, journal: StatementJournal, step: int, name: str, started_ms: int) -> None:
        super().__init__()
        self._journal = journal
        self._of = (step, name)
        self._started_ms = started_ms

    def write(self, tx: PostgresTransaction | None) -> None:
        step, name = self._of
        self._journal.finish(step, name, self.result, self._started_ms, tx)


def replayed(store: PostgresStore, pairs: Pairs, appends: Sequence[Append], run_id: str, step: int) -> list[Written]:
    """Give what a run wrote the first time in place of what it is about to write.

    Raises:
        Nondeterminism: It is about to write something else: other records, or other versions of them.
    """
    asked = [(append.id, append.version) for append in appends]
    same = len(asked) == len(pairs) and all(
        number == version and (number == 0 or record == recorded)
        for (record, number), (recorded, version) in zip(asked, pairs, strict=False)
    )
    if not same:
        raise nondeterminism(run_id, step, f"wrote {_listed(pairs)}", f"writes {_listed(asked)}")
    rows = patiently(lambda: store.versions(pairs))
    return [Written(_as_append(row), row.stamp) for row in rows]


def _listed(pairs: Sequence[tuple[Any, Any]]) -> str:
    return ", ".join(f"version {version} of {record}" for record, version in pairs)


def _as_append(row: StoredVersion) -> Append:
    stamp = row.stamp
    return Append(
        id=row.id,
        version=row.version,
        class_type=row.class_type,
        data=row.data if isinstance(row.data, bytes) else row.data.encode(),
        schema_version=stamp.schema_version,
        actor=stamp.actor,
        reason=stamp.reason,
        correlation_id=stamp.correlation_id,
        workflow_id=stamp.workflow_id,
        step_id=stamp.step_id,
        tombstone=stamp.tombstone,
        keys=(),
        version_id=stamp.version_id,
        calls=stamp.calls,
    )


def patiently(work: Callable[[], T]) -> T:
    """Do work on the store for as long as it takes until the server is back: a run must not fail by an outage."""
    while True:
        try:
            return work()
        except StoreUnavailable as error:
            _log.warning("a run waits for Postgres: %s", error, extra={"action": "wait"})
            time.sleep(1)


def derived_id(created_ms: int, name: str) -> UUID:
    """Make a version 7 UUID of a moment and a name: the same of the same ones (RFC 9562, 5.7)."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])
    value = (created_ms & ((1 << 48) - 1)) << 80 | digest & ((1 << 80) - 1)
    value = value & ~(0xF << 76) | 7 << 76
    return UUID(int=value & ~(3 << 62) | 2 << 62)


def now_ms() -> int:
    """Give the time in milliseconds since the epoch, for the times of steps that people look at."""
    return time.time_ns() // 1_000_000
