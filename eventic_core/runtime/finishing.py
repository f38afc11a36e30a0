"""One function in one transaction that also holds its outcome: the row that says it is done.

Used for a run's transactions, for handlers and for calls that run later. What the outcome is, the caller says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from eventic_core.errors import Conflict, StoreUnavailable
from eventic_core.records.blocking import in_thread
from eventic_core.records.editing import edit_scope
from eventic_core.records.ids import ids_from
from eventic_core.records.port import using_store
from eventic_core.records.stamp import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from eventic_core.records.scope import Scope
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

T = TypeVar("T")


class Interrupted(Exception):
    """The connection was lost or Postgres ended the transaction; whether it had committed is not known."""


class Finish(ABC):
    """What makes the work done: written in its transaction before the commit, or alone if it wrote nothing.

    Args:
        transaction: The transaction to work in, which whoever opened it ends; default one of its own.
    """

    def __init__(self, transaction: PostgresTransaction | None = None) -> None:
        self.transaction = transaction
        self.result: Any = None
        self.in_transaction = False

    @abstractmethod
    def write(self, tx: PostgresTransaction | None) -> None:
        """Write the outcome; raises to roll everything back."""


class _FinishingStore:
    """The store, whose transactions end with the outcome."""

    def __init__(self, store: PostgresStore, finish: Finish) -> None:
        self._store = store
        self._finish = finish

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin(self) -> PostgresTransaction:
        tx = self._store.begin()

        def write(tx: PostgresTransaction) -> None:
            self._finish.write(tx)
            self._finish.in_transaction = True

        tx.before_commit = write
        return tx


def run_in_transaction(
    store: PostgresStore,
    body: Callable[[], T],
    finish: Finish,
    *,
    run_id: str,
    step_id: int | None,
    default_reason: str | None = None,
) -> T:
    """Run `body` as one scope; its writes, the work it enqueues and `finish` commit together or not at all.

    Raises:
        Interrupted: See there; may be done again by a caller that finds out first.
        Exception: What `body` raised, or what refused the commit; nothing is stored.
    """
    with _unit(store, finish, run_id, step_id):
        with edit_scope(default_reason=default_reason, open_transaction=_opened(finish)) as scope:
            _join(scope, finish)
            finish.result = body()
            scope.flush()  # so that a record in the result is the version that is written
        if not finish.in_transaction:
            finish.write(None)
    return finish.result  # type: ignore[no-any-return]


async def run_in_transaction_async(
    store: PostgresStore, body: Callable[[], Awaitable[T]], finish: Finish, *, run_id: str, step_id: int | None
) -> T:
    """Run an async `body` as one scope; see `run_in_transaction`."""
    with _unit(store, finish, run_id, step_id):
        async with edit_scope(open_transaction=_opened(finish)) as scope:
            _join(scope, finish)
            finish.result = await body()
            if not scope.is_idle:
                await in_thread(scope.flush)
        if not finish.in_transaction:
            await in_thread(finish.write, None)
    return finish.result  # type: ignore[no-any-return]


def _opened(finish: Finish) -> Callable[[], PostgresTransaction] | None:
    opened = finish.transaction
    return None if opened is None else lambda: opened


def _join(scope: Scope, finish: Finish) -> None:
    if finish.transaction is not None:
        _ = scope.transaction


@contextmanager
def _unit(store: PostgresStore, finish: Finish, run_id: str, step_id: int | None) -> Iterator[None]:
    finishing: Any = _FinishingStore(store, finish)
    with interruptions(), using_store(finishing), ids_from(None), running(workflow_id=run_id, step_id=step_id):
        yield


@contextmanager
def interruptions() -> Iterator[None]:
    """Turn what ends a transaction through no fault of what it does into `Interrupted`."""
    try:
        yield
    except StoreUnavailable as error:
        raise Interrupted(error.message) from error
    except Conflict as error:
        if type(error) is Conflict and error.__cause__ is not None:  # a deadlock, which Postgres ended
            raise Interrupted(error.message) from error
        raise
