"""Queues and handles: work enqueued by name, in the transaction of whoever enqueues it, and its result.

A queue's keyed work has lanes, which run one piece at a time and in order; work without a key runs in parallel. DBOS
wants these apart, so the kind a queue is not for lies on a second row beside it.
"""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from pydantic_core import from_json

from eventic_core.errors import (
    Conflict,
    Invalid,
    NotAllowed,
    RemoteError,
    ResultTimeout,
    RunCancelled,
    RunNotFound,
)
from eventic_core.records import state
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import current_scope, edit_scope
from eventic_core.records.ids import new_id
from eventic_core.records.port import Work, current_store, installed_store, using_store
from eventic_core.records.record import Record
from eventic_core.records.record_class import registered
from eventic_core.runtime import codec
from eventic_core.runtime.calls import LATER, RUN, Call
from eventic_core.runtime.functions import current_journal, function_of
from eventic_core.store.handlers import queue_of
from eventic_core.store.trace import untraced
from eventic_core.store.work import DEFAULT_PER_WORKER, SERIALIZATION, QueueRow, lane_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eventic_core.records.port import Store, Transaction
    from eventic_core.runtime.functions import Function
    from eventic_core.store import PostgresStore

R = TypeVar("R")

_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.002, 0.1
_MANY = 1000
_CANCELLED = ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_ENDED = ("SUCCESS", "ERROR", *_CANCELLED)


@contextmanager
def _transaction(store: Store) -> Iterator[Transaction]:
    tx = store.begin()
    try:
        yield tx
    except BaseException:
        tx.rollback()
        raise
    tx.commit()


def queue_name(stored: str) -> str:
    """Give the name that people know a queue by: one with lanes has a second row in the table, and vice versa."""
    return stored.removesuffix(".lanes").removesuffix(".parallel")


def _store() -> PostgresStore:
    store: Any = installed_store()
    return store  # type: ignore[no-any-return]


class Handle(Generic[R]):
    """A run that was enqueued; its result when it is there.

    Attributes:
        id: The run's id.
    """

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def status(self) -> str:
        """Read the run's status, in DBOS's words: ENQUEUED, DELAYED, PENDING, SUCCESS, ERROR, CANCELLED.

        Raises:
            RunNotFound: The run was removed, or its enqueueing was rolled back.
        """
        return self._read()[0]

    def result(self, *, timeout_seconds: float | None = None) -> R:
        """Wait for the run's result; in the body of a workflow it is a step.

        Args:
            timeout_seconds: How long to wait; `None` is as long as it takes.

        Raises:
            ResultTimeout: It took longer.
            RunCancelled: The run was cancelled, or given up because it killed its workers.
            RunNotFound: There is no such run.
            ScopeError: A scope is open, whose transaction may hold the very work back.
            Exception: What the run raised, as its own class where this process knows it, else a RemoteError.
        """
        refuse_in_loop("result()", "result_async()")
        if current_scope() is not None:
            message = (
                f"result() of {self.id} inside a scope would wait for work that waits for the scope: leave it first."
            )
            raise NotAllowed(message)
        journal = current_journal()
        if journal is None:
            return self._wait(timeout_seconds)
        found: R = journal.value(f"result of {self.id}", lambda: self._wait(timeout_seconds))
        return found

    async def result_async(self, *, timeout_seconds: float | None = None) -> R:
        """Wait for the run's result without blocking the event loop; see `result`."""
        return await in_thread(self.result, timeout_seconds=timeout_seconds)

    def __await__(self) -> Any:
        return self.result_async().__await__()

    def _read(self) -> tuple[str, str | None, str | None, str | None]:
        row = _store().work.result(self.id)
        if row is None:
            message = f"No run {self.id!r} is stored. It was removed, or the transaction that enqueued it was undone."
            raise RunNotFound(message)
        return row

    def _wait(self, timeout_seconds: float | None) -> R:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = _FIRST_POLL_SECONDS
        while True:
            status, serialization, output, error = self._read()
            if status in _ENDED:
                return self._outcome(status, serialization, output, error)
            if deadline is not None and time.monotonic() >= deadline:
                message = f"Run {self.id} did not end within {timeout_seconds} s; it is {status} and goes on."
                raise ResultTimeout(message)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def _outcome(self, status: str, serialization: str | None, output: str | None, error: str | None) -> R:
        if status in _CANCELLED:
            message = f"Run {self.id} has no result: it is {status}."
            raise RunCancelled(message)
        with using_store(None):
            if status == "ERROR":
                raise _error(serialization, error)
            found: R = codec.loads(output or "null") if serialization == SERIALIZATION else from_json(output or "null")
        return found


def _error(serialization: str | None, text: str | None) -> Exception:
    if serialization == SERIALIZATION and text:
        error: Exception = codec.loads(text)
        return error
    return RemoteError(text or "no error was recorded", "unknown")


class Queue:
    """A queue by its name; made by `Eventic.queue`. Enqueueing needs no worker, and no launch, in this process."""

    def __init__(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        limit: int | None = None,
        rate: tuple[int, float] | None = None,
    ) -> None:
        if not name or name.startswith("_dbos_"):
            message = f"{name!r} is no name for a queue: it must not be empty or begin with _dbos_."
            raise Invalid(message)
        for what, value in (("concurrency", concurrency), ("limit", limit), ("rate", rate and rate[0])):
            if value is not None and value < 1:
                message = f"queue({name!r}, {what}={value}): with less than 1 no work would ever run."
                raise Invalid(message)
        self.name = name
        self._concurrency = concurrency
        self._limit = limit
        self._rate = rate

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def row(self, *, keyed: bool) -> QueueRow:
        """Give the row on which keyed work, or the other, lies."""
        of_class = next((cls for cls in registered() if cls._queue_name == self.name), None)
        default = DEFAULT_PER_WORKER
        ordered = False
        if of_class is not None:
            own = queue_of(of_class.__eventic__.class_type)
            default, ordered = own.per_worker, own.lanes
        elif self.name.startswith("queue_"):
            ordered = True  # of a class this process has not defined
        lanes = keyed and not self._limit and not self._rate and (ordered or of_class is None)
        suffix = "" if lanes == ordered else (".lanes" if lanes else ".parallel")
        return QueueRow(self.name + suffix, self._concurrency or default, self._limit, self._rate, lanes=lanes)

    def rows(self) -> tuple[QueueRow, ...]:
        """Give all its rows."""
        return tuple(dict.fromkeys((self.row(keyed=True), self.row(keyed=False))))

    def enqueue(
        self,
        function: Callable[..., R],
        /,
        *args: Any,
        key: UUID | str | None = None,
        delay_seconds: float = 0.0,
        run_id: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]:
        """Enqueue a call of a workflow, step or transaction; a worker runs it.

        In a scope it is enqueued when the scope commits, or not at all; in the body of a workflow it is a step.

        Args:
            function: Decorated with `Eventic.workflow()`, `step()` or `transaction()`.
            args: Its arguments. If the first is a record or a UUID, it is the key.
            key: Work with the same key runs one at a time and in order; `None` without such a first argument is
                parallel.
            delay_seconds: When it is ready; to about a second.
            run_id: The run's id, for work that must not be enqueued twice; default a new one.
            kwargs: Its keyword arguments.

        Raises:
            NotRegistered: The function is not decorated.
            Invalid: The arguments do not fit its signature.
            NotSerialisable: JSON cannot hold an argument. Nothing is enqueued.
            WriteInStep: In a step, which may run twice.
            Conflict: The run id is taken by another call.
        """
        refuse_in_loop("enqueue()", "enqueue_async()")
        known = function_of(function)
        lane_key = _key(args) if key is None else str(key)
        row = self.row(keyed=lane_key is not None)
        made = _work(known, args, kwargs, row, lane_key)

        def work(made_id: str) -> Work:
            return made._replace(id=run_id or made_id, delay_seconds=delay_seconds)

        return Handle(enqueue(row, f"enqueue {known.name} on {self.name}", work, chosen=run_id is not None))

    def enqueue_many(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], /) -> list[str]:
        """Enqueue a call for each tuple of arguments, all or none; gives the ids of the runs.

        In the transaction of the scope that is open, or in one of its own, a thousand to a statement.

        Args:
            function: As of `enqueue`.
            calls: The arguments of each call; read once, as it is sent.

        Raises:
            NotAllowed: In the body of a workflow: call it in a function with `Eventic.transaction()`.
            NotRegistered, Invalid, NotSerialisable, WriteInStep: As of `enqueue`.
        """
        refuse_in_loop("enqueue_many()", "asyncio.to_thread(queue.enqueue_many, ...)")
        if current_journal() is not None:
            message = "enqueue_many() in the body of a workflow: call it in a function with @Eventic.transaction()."
            raise NotAllowed(message)
        known, store, scope = function_of(function), current_store(), current_scope()
        for row in self.rows():  # before a transaction is open, which making tables of DBOS's would wait for
            _ensure(row)
        if scope is None:
            with _transaction(store) as tx:
                return self._send_many(known, calls, store, tx)
        with edit_scope():  # a level of its own, so that what fails half way takes back what it has sent
            return self._send_many(known, calls, store, scope.direct_transaction())

    def _send_many(self, known: Function, calls: Iterable[tuple[Any, ...]], store: Store, tx: Transaction) -> list[str]:
        ids: list[str] = []
        arguments = iter(calls)
        keyed, parallel = self.row(keyed=True), self.row(keyed=False)
        while batch := list(islice(arguments, _MANY)):
            work = []
            for args in batch:
                lane_key = _key(args)
                row = parallel if lane_key is None else keyed
                work.append(_work(known, args, {}, row, lane_key)._replace(id=str(new_id())))
            store.enqueue(work, tx)
            ids += [made.id for made in work]
        return ids

    async def enqueue_async(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Handle[Any]:
        """Enqueue a call without blocking the event loop; see `enqueue`."""
        return await in_thread(self.enqueue, function, *args, **options)


def _work(known: Function, args: tuple[Any, ...], kwargs: dict[str, Any], row: QueueRow, lane_key: str | None) -> Work:
    is_workflow = known.kind == "workflow"
    more = {} if is_workflow else {"function": known.name}
    call = Call.of(known.plain, known.name, args, kwargs, **more)
    lane = lane_of(lane_key) if row.lanes and lane_key is not None else None
    return Work("", known.name if is_workflow else RUN, row.name, call.payload, lane)


def _key(args: tuple[Any, ...]) -> str | None:
    if args and isinstance(args[0], Record):
        return str(args[0].id)
    return str(args[0]) if args and isinstance(args[0], UUID) else None


def enqueue(row: QueueRow, name: str, work: Callable[[str], Work], *, chosen: bool = False) -> str:
    """Enqueue work where the calling code is: in its scope, as a step of its run, or by itself; gives the run's id.

    Args:
        row: The queue.
        name: The step's, in the body of a workflow.
        work: Makes the work of the run's id.
        chosen: Whether the id is the caller's, so that it may be taken.
    """
    store, scope, journal = current_store(), current_scope(), current_journal()
    _ensure(row)
    if scope is not None:
        made = work(str(new_id()))
        _refuse_taken(made, chosen=chosen)
        scope.enqueue(made)
        return made.id
    if journal is not None:
        return journal.enqueue(name, lambda step: work(f"{journal.run_id}-{step:06}")).id
    made = work(str(new_id()))
    _refuse_taken(made, chosen=chosen)
    store.enqueue([made])
    return made.id


def _ensure(row: QueueRow) -> None:
    from eventic_core.runtime.process import process

    process().ensure_queue(row)


def _refuse_taken(work: Work, *, chosen: bool) -> None:
    known = _store().work.payload(work.id) if chosen else None
    if known is not None and (known[0], untraced(known[1])) != (work.name, untraced(work.payload)):
        message = f"Run {work.id!r} is another call: of {known[0]} with other arguments. Choose another run_id."
        raise Conflict(message)


# -- calls that run later


def later_work(record: Record, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[QueueRow, Work]:
    """Make the work that calls a method of a record on a worker, in the record's lane."""
    cls = type(record)
    class_type = cls.__eventic__.class_type
    row = queue_of(class_type)
    function = getattr(cls, method)
    name = f"{cls.__name__}.{method}"
    more = {"class": class_type, "record": str(record.id), "method": method}
    call = Call.of(_without_self(function), name, args, kwargs, **more)
    lane = lane_of(record.id) if row.lanes else None
    return row, Work(str(new_id()), LATER, row.name, call.payload, lane)


@functools.lru_cache(maxsize=1024)
def _without_self(method: Callable[..., Any]) -> Callable[..., Any]:
    """Give what has a method's signature without its record; made once, for signatures are kept by function."""
    import inspect

    def without_self(*_args: Any, **_kwargs: Any) -> None: ...

    signature = inspect.signature(method)
    without_self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return without_self


def later(method: Callable[..., R], /, *args: Any, **kwargs: Any) -> Handle[R]:
    """Call a method of a record later, on a worker, on the record as it is then: `later(item.finish)`.

    Calls for one record run one at a time, in the order they were enqueued, on the queue of its class. Each is one
    transaction. In a scope it is enqueued when the scope commits; in the body of a workflow it is a step.

    Args:
        method: A method of a stored record.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Raises:
        Invalid: It is no method of a stored record, or the arguments do not fit.
        NotSerialisable: JSON cannot hold an argument. Nothing is enqueued.
        WriteInStep: In a step, which may run twice.
    """
    record: Any = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    if not isinstance(record, Record) or name.startswith("_"):
        message = f"later({method!r}): give a public method of a record, such as later(item.finish)."
        raise Invalid(message)
    if not state.is_tracked(record):
        message = f"later() of a {type(record).__name__} that is a draft: save() it first, a worker must find it."
        raise Invalid(message)
    refuse_in_loop("later()", "asyncio.to_thread(later, ...)")
    state.refuse_deleted(record)
    row, made = later_work(record, name, args, kwargs)
    return Handle(enqueue(row, f"later {type(record).__name__}.{name}", lambda run_id: made._replace(id=run_id)))
