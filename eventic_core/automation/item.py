"""One attempt at one item: its function called in a scope of its own, and what came of it.

What the function writes is collected, to be stored with the item's status in one statement with many others. One that
needs a transaction of its own, because it queries what it has changed or sends SQL, gets one that ends with its status.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic_core import to_jsonable_python

from eventic_core.automation.steering import Steering
from eventic_core.errors import Conflict, NotSerialisable, StoreUnavailable, VersionConflict
from eventic_core.records import state
from eventic_core.records.editing import edit_scope
from eventic_core.records.ids import ids_from
from eventic_core.records.port import OwnershipLost, StaleWrite, Written, using_store
from eventic_core.records.stamp import stamped
from eventic_core.runtime.functions import idempotent
from eventic_core.runtime.step_log import StepLog, doing_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventic_core.records.port import Append, Transaction, Work
    from eventic_core.records.stamp import Origin
    from eventic_core.runtime.step_log import Steps
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

    Opened = Callable[["Outcome", threading.Event], Any]


@dataclass(slots=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        result: What the function returned, as JSON data, or a `Steering`.
        error: What it raised; `None` if it did not.
        appends: The versions it wrote, to be stored with its status.
        work: The work it enqueued, likewise.
        is_stored: Whether it was stored already, in a transaction of its own.
        steps: What the steps gave that it called; see `StepLog`.
        began_at: When the function was called.
    """

    result: Any = None
    error: Exception | None = None
    appends: list[Append] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    is_stored: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class _ItemStore:
    """The store in an item's scope: writes are collected until somebody needs a transaction."""

    def __init__(self, store: PostgresStore, outcome: Outcome, commit: Callable[[PostgresTransaction], None]) -> None:
        self._store = store
        self._outcome = outcome
        self._commit = commit
        self.max_record_bytes = store.max_record_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin(self) -> PostgresTransaction:
        tx = self._store.begin()
        tx.before_commit = self._commit
        return tx

    def append(
        self, appends: Sequence[Append], tx: PostgresTransaction | None = None, *, work: Sequence[Work] = ()
    ) -> list[Written]:
        if tx is not None:
            return self._store.append(appends, tx, work=work)
        self._outcome.appends.extend(appends)
        self._outcome.work.extend(work)
        return [Written(append, state.provisional(append)) for append in appends]

    def enqueue(self, work: Sequence[Work], tx: Transaction | None = None) -> None:
        if tx is not None:
            self._store.enqueue(work, tx)
        else:
            self._outcome.work.extend(work)


_NEVER_LATE: Final = threading.Event()


class _Late(Exception):
    """The attempt has timed out meanwhile: what it was about to store is not wanted any more."""


class Context(Protocol):
    """What an attempt needs to know of the item or the job it is at."""

    @property
    def number(self) -> int:
        """Its place in the run, the step that its writes are stamped with."""
        ...

    @property
    def idempotency_key(self) -> str:
        """For calls to the outside."""
        ...


class Called(Protocol):
    """What has a function that is tried: an automation, or a job."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def timeout_seconds(self) -> float | None:
        """How long one attempt may take."""
        ...

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        ...

    @property
    def call(self) -> Callable[[Any, Any], Any]:
        """The function, of what `item_of` makes and a context."""
        ...

    def item_of(self, payload: Any) -> Any:
        """Make of JSON data what the function takes."""
        ...


class Attempts:
    """Makes attempts at the items of a run, or at its jobs.

    Args:
        automation: Whose function is called.
        store: Where records are.
        origin: Who acts, and the run; the step is the item's number.
        invoke: Calls a function, awaiting it if it is async.
    """

    def __init__(self, automation: Called, store: PostgresStore, origin: Origin, invoke: Callable[..., Any]) -> None:
        self._automation = automation
        self._store = store
        self._origin = origin
        self._invoke = invoke

    def make(
        self,
        payload: Any,
        context: Context,
        commit: Callable[[Outcome, PostgresTransaction], None],
        began_at: datetime | None = None,
    ) -> Outcome:
        """Call the function for one item, within its time.

        Args:
            payload: The item's.
            context: What the function is told.
            commit: Writes the item's status into a transaction that the function needed.
            began_at: When the attempt began, if that was just now; else it begins with the call.

        Raises:
            OwnershipLost: The work was taken over.
            StoreUnavailable: Postgres is away, which is not the item's fault.
            StaleWrite: Somebody wrote a record that it wrote too: it is to be called again.
        """

        def opened(outcome: Outcome, late: threading.Event) -> _ItemStore:
            def write(tx: PostgresTransaction) -> None:
                if late.is_set():
                    raise _Late
                commit(outcome, tx)
                outcome.is_stored = True

            return _ItemStore(self._store, outcome, write)

        return self.call(payload, context, opened, StepLog(), began_at)

    def call(
        self, payload: Any, context: Context, opened: Opened, steps: Steps, began_at: datetime | None = None
    ) -> Outcome:
        """Call the function for one item, within its time, on a store of the caller's; see `make`.

        Args:
            payload: The item's.
            context: What the function is told.
            opened: Gives the store, of the outcome that is filled, and what tells when that is not wanted any more.
            steps: Does the steps that the function calls.
            began_at: As for `make`.
        """
        outcome = Outcome(began_at=began_at or datetime.now(UTC))
        seconds = self._automation.timeout_seconds
        if seconds is None or self._automation.is_async:
            return self._attempt(outcome, payload, context, opened(outcome, _NEVER_LATE), steps)
        late = threading.Event()
        ended: list[Outcome | BaseException] = []

        def attempt() -> None:
            try:
                ended.append(self._attempt(outcome, payload, context, opened(outcome, late), steps))
            except BaseException as error:  # noqa: BLE001 - raised again by who waits
                ended.append(error)

        thread = threading.Thread(target=copy_context().run, args=(attempt,), name="eventic-item", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            late.set()
            thread.join(0.05)  # it may be committing: then that stands
        if not ended:
            error = TimeoutError(f"It took longer than {seconds} s; its thread is left to itself.")
            return Outcome(error=error, steps=steps.entries, began_at=outcome.began_at)
        if isinstance(ended[0], BaseException):
            raise ended[0]
        return ended[0]

    def _attempt(self, outcome: Outcome, payload: Any, context: Context, store: Any, steps: Steps) -> Outcome:
        try:
            copy_context().run(self._in_scope, outcome, payload, context, store, steps)
        except (OwnershipLost, StoreUnavailable, StaleWrite):
            raise
        except VersionConflict as error:  # of what it wrote: nothing is wrong with the item
            raise StaleWrite from error
        except Exception as error:
            if type(error) is Conflict and error.__cause__ is not None:  # a deadlock, which Postgres ended
                raise StaleWrite from error
            return Outcome(error=error, steps=steps.entries, began_at=outcome.began_at)
        return outcome

    def _in_scope(self, outcome: Outcome, payload: Any, context: Context, store: Any, steps: Steps) -> None:
        """Fill in the outcome; in a context that is given up afterwards, whatever the function sets in it."""
        using_store(store).keep()
        ids_from(None).keep()
        stamped(self._origin._replace(step_id=context.number)).keep()
        idempotent(context.idempotency_key).keep()
        doing_steps(steps).keep()
        with edit_scope(default_reason=self._automation.name):
            item = self._automation.item_of(payload)
            outcome.result = _as_json(self._invoke(self._automation.call, item, context), self._automation.name)
            outcome.steps = steps.entries  # before the scope ends, which may store the outcome


def _as_json(result: Any, name: str) -> Any:
    if isinstance(result, Steering):
        return result
    try:
        return to_jsonable_python(result, inf_nan_mode="constants")
    except (ValueError, TypeError, RecursionError) as error:
        message = f"{name}: JSON cannot hold what it returned, {result!r:.200}: {error}"
        raise NotSerialisable(message) from error
