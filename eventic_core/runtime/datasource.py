"""The other way to put a run's steps on record: through DBOS's own steps and its datasource.

Slower, and there in case the tables behind the one-statement way change; both ways pass the same tests. DBOS runs a
step's transaction again when its connection was lost, so what it changed in memory is undone first.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from eventic_core.records.port import AlreadyDone, Written
from eventic_core.runtime import adapter, codec
from eventic_core.runtime.calls import nondeterminism
from eventic_core.runtime.finishing import Finish, Interrupted, interruptions
from eventic_core.runtime.journal import Numbers, patiently, replayed
from eventic_core.store.transaction import PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from sqlalchemy.orm import Session

    from eventic_core.records.port import Append, StoredVersion, Work
    from eventic_core.runtime.adapter import Position
    from eventic_core.store import PostgresStore

T = TypeVar("T")
_log = logging.getLogger("eventic")
_PAUSE_SECONDS = 0.2


class DatasourceJournal(Numbers):
    """Checkpoints written by DBOS, in the transaction of what they are about."""

    def __init__(self, store: PostgresStore, position: Position, _lost: Callable[[str], BaseException]) -> None:
        super().__init__(store, position)

    def write(self, name: str, appends: Sequence[Append], work: Sequence[Work]) -> list[Written]:
        step = self._next()
        stamped = [append._replace(workflow_id=self.run_id, step_id=step) for append in appends]
        pairs = [(append.id, append.version) for append in appends]
        written: list[Written] = []

        def append(tx: PostgresTransaction) -> list[list[Any]]:
            written[:] = self.store.append(stamped, tx, work=work)
            return [list(pair) for pair in pairs]

        done = self._transact(step, name, append)
        if not isinstance(done, adapter.Encoded):
            return replayed(self.store, done, appends, self.run_id, step)
        return [Written(append, stored.stamp) for append, stored in zip(appends, written, strict=True)]

    def enqueue(self, name: str, work: Callable[[int], Work]) -> Work:
        step = self._next()
        made = work(step)

        def enqueue(tx: PostgresTransaction) -> str:
            self.store.enqueue([made], tx)
            return made.id

        return made._replace(id=_value(self._transact(step, name, enqueue)))

    def read(self, name: str, read: Callable[[], Sequence[StoredVersion]]) -> list[StoredVersion]:
        rows: list[StoredVersion] = []

        def pairs() -> list[tuple[UUID, int]]:
            rows[:] = patiently(read)
            return [(row.id, row.version) for row in rows]

        done = self._compute(name, lambda: [list(pair) for pair in pairs()])
        if isinstance(done, adapter.Encoded):
            return rows
        return patiently(lambda: self.store.versions([(record, version) for record, version in done]))

    def value(self, name: str, compute: Callable[[], T]) -> T:
        found: T = _value(self._compute(name, lambda: patiently(compute)))
        return found

    def transaction(self, name: str, attempt: Callable[[Finish, int], T]) -> T:
        step = self._next()
        found: T = _value(self._transact(step, name, lambda tx: attempt(_Joined(tx), step)))
        return found

    # -- steps of DBOS

    def _compute(self, name: str, compute: Callable[[], Any]) -> Any:
        """Let DBOS do a step that writes nothing; gives an `Encoded` if it was done now."""
        step = self._next()
        try:
            return adapter.value_step(step, name, lambda: _encoded(compute(), step, name))
        except AlreadyDone as done:
            raise self._other(step, name, done) from done

    def _transact(self, step: int, name: str, work: Callable[[PostgresTransaction], Any]) -> Any:
        """Let DBOS do a step in a transaction of its own; gives an `Encoded` if it was done, and committed, now."""
        effects = _Effects()

        def body(session: Session) -> adapter.Encoded:
            effects.undo()
            try:
                with interruptions():
                    tx = _StepTransaction.join(self.store.database, session)
                    assert isinstance(tx, _StepTransaction)
                    tx.effects = effects
                    return _encoded(work(tx), step, name)
            except Interrupted as error:
                raise _Again from error

        while True:
            try:
                done = adapter.transaction_step(step, name, body)
                break
            except _Again as again:
                effects.undo()
                cause = again.__cause__
                _log.warning("step %s of %s is repeated: %s", step, self.run_id, cause, extra={"action": "repeat"})
                time.sleep(_PAUSE_SECONDS)
            except AlreadyDone as error:
                raise self._other(step, name, error) from error
            except BaseException:
                effects.undo()
                raise
        if isinstance(done, adapter.Encoded):
            effects.committed()
        else:
            effects.undo()
        return done

    def _other(self, step: int, name: str, done: AlreadyDone) -> Exception:
        return nondeterminism(self.run_id, step, f"did {done.name!r}", f"does {name!r}")


class _Again(BaseException):
    """The transaction was interrupted; no `Exception`, so that DBOS does not record it as the step's error."""


class _Joined(Finish):
    """Nothing to add: DBOS writes the step's row."""

    def write(self, tx: PostgresTransaction | None) -> None:
        pass


class _Effects:
    """What a step's transaction is to do in memory when it is known whether it was committed."""

    def __init__(self) -> None:
        self.undos: list[Callable[[], object]] = []
        self.thens: list[Callable[[], object]] = []

    def undo(self) -> None:
        while self.undos:
            self.undos.pop()()
        self.thens.clear()

    def committed(self) -> None:
        for then in self.thens:
            then()


class _StepTransaction(PostgresTransaction):
    """A transaction of DBOS's, which alone knows in the end whether it was committed."""

    effects: _Effects

    def on_commit(self, then: Callable[[], object]) -> None:
        self.effects.thens.append(then)

    def on_rollback(self, undo: Callable[[], object]) -> None:
        self.effects.undos.append(undo)


def _encoded(value: Any, step: int, name: str) -> adapter.Encoded:
    return adapter.Encoded(value, codec.dumps(value, f"what step {step} ({name}) gives"))


def _value(done: Any) -> Any:
    return done.value if isinstance(done, adapter.Encoded) else done
