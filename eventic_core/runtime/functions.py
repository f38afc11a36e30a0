"""Functions of the user's that are durable: workflows, steps and transactions, under names that outlive a process.

Owns the three decorators and the registry of names. DBOS hears of workflows when it is launched, or at once if it is.
"""

from __future__ import annotations

import functools
import inspect
import random
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from eventic_core.errors import DuplicateRegistration, Invalid, NotRegistered
from eventic_core.records.blocking import in_thread, refuse_in_loop, reserving
from eventic_core.records.editing import edit_scope, in_scope
from eventic_core.records.ids import ids_from
from eventic_core.records.port import using_store
from eventic_core.records.setting import Setting
from eventic_core.records.stamp import acting, running
from eventic_core.runtime import tracing
from eventic_core.runtime.borrowed import Borrowed
from eventic_core.runtime.calls import Call
from eventic_core.runtime.finishing import Finish, run_in_transaction, run_in_transaction_async
from eventic_core.runtime.recorder import RecordingStore, StepStore
from eventic_core.runtime.step_log import current_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.runtime.journal import Journal
    from eventic_core.runtime.process import Process
    from eventic_core.store import PostgresStore

_Function = TypeVar("_Function", bound="Callable[..., Any]")
Kind = Literal["workflow", "step", "transaction"]

MAX_ATTEMPTS = 100
"""Executions of one run before it counts as the poison that kills its workers."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a step or a handler that failed is tried again: after `delay_seconds`, then each time `backoff` times later.

    Attributes:
        max_attempts: All tries, the first one included; at least 1.
        delay_seconds: Before the second try.
        backoff: Factor from one delay to the next.
        max_delay_seconds: No delay is longer.
        jitter: The share of a delay, 0 to 1, that is left to chance, so that not all come back at once.
    """

    max_attempts: int = 1
    delay_seconds: float = 1.0
    backoff: float = 2.0
    max_delay_seconds: float = 3600.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        sensible = self.max_attempts >= 1 and self.delay_seconds >= 0 and self.backoff >= 1 and 0 <= self.jitter <= 1
        if not sensible:
            message = (
                f"{self!r}: at least one attempt, a delay of 0 or more, a backoff of 1 or more, a jitter of 0 to 1."
            )
            raise Invalid(message)

    def delay_after(self, attempts: int) -> float:
        """Give the seconds to wait after this many attempts, the first being 1."""
        delay = min(self.delay_seconds * self.backoff ** (attempts - 1), self.max_delay_seconds)
        return delay * (1 - self.jitter * random.random())  # noqa: S311 - jitter, not a secret


@dataclass(slots=True, kw_only=True)
class Function:
    """A durable function: what a worker finds under its name."""

    name: str
    kind: Kind
    plain: Callable[..., Any]
    retry: Retry = field(default_factory=Retry)
    max_attempts: int = MAX_ATTEMPTS
    start: Callable[[Call], Any] | None = None
    body: Callable[[Call], Any] | None = None

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        return inspect.iscoroutinefunction(self.plain)


_functions: dict[str, Function] = {}
_journal: ContextVar[Journal | None] = ContextVar("eventic_journal", default=None)
_idempotency_key: ContextVar[str | None] = ContextVar("eventic_idempotency_key", default=None)


def current_journal() -> Journal | None:
    """Give the journal of the run whose body is running; `None` in steps, transactions and outside of runs."""
    return _journal.get()


def idempotency_key() -> str | None:
    """Give the running step's key for calls to the outside, the same in all its attempts; `None` outside of steps."""
    return _idempotency_key.get()


def idempotent(key: str) -> Setting[str | None]:
    """Give steps called inside a `with` block, which are part of what runs there, this key."""
    return Setting(_idempotency_key, key)


def known(name: str) -> Function | None:
    """Give the function registered under a name, if this process has defined it."""
    return _functions.get(name)


def find(name: str) -> Function:
    """Give the function registered under a name.

    Raises:
        NotRegistered: This process has not defined it.
    """
    found = known(name)
    if found is None:
        message = f"No function {name!r} is registered in this process: import its module in the worker."
        raise NotRegistered(message)
    return found


def function_of(function: Callable[..., Any]) -> Function:
    """Give what is registered for a decorated function.

    Raises:
        NotRegistered: It is not decorated.
    """
    known: Function | None = getattr(function, "__eventic_function__", None)
    if known is None:
        name = getattr(function, "__qualname__", repr(function))
        message = (
            f"{name} is not durable, so no worker could find it: decorate it with @Eventic.workflow(), step() or "
            "transaction()."
        )
        raise NotRegistered(message)
    return known


def workflows() -> list[Function]:
    """List the workflows defined so far."""
    return [function for function in _functions.values() if function.kind == "workflow"]


def _register(function: Function) -> None:
    known = _functions.get(function.name)
    if known is not None and not same_place(known.plain, function.plain):
        message = (
            f"Two functions are registered as {function.name!r}: {place(known.plain)} and {place(function.plain)}. "
            'Give one of them name="...".'
        )
        raise DuplicateRegistration(message)
    _functions[function.name] = function


def place(function: Callable[..., Any]) -> str:
    """Say where a function is defined."""
    return f"{function.__module__}.{function.__qualname__}"


def same_place(known: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Tell whether one definition replaces the other: a script that is imported again, or a local function."""
    if "<locals>" in known.__qualname__ + new.__qualname__:
        return True
    modules = {known.__module__, new.__module__}
    return known.__qualname__ == new.__qualname__ and (len(modules) == 1 or "__main__" in modules)


def name_of(function: Callable[..., Any], name: str | None) -> str:
    """Give the name a function is known by in every process: without its module, which is another in the script."""
    found = name or function.__qualname__.replace("<locals>.", "")
    if found.startswith("eventic."):
        message = f"The name {found!r} is taken: names that begin with 'eventic.' are the package's own."
        raise Invalid(message)
    return found


# -- workflows


def workflow(process: Callable[[], Process], name: str | None, max_attempts: int) -> Callable[[_Function], _Function]:
    """Make the decorator `Eventic.workflow`; see there."""

    def decorate(function: _Function) -> _Function:
        known = Function(name=name_of(function, name), kind="workflow", plain=function, max_attempts=max_attempts)
        _register(known)

        if known.is_async:

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                return await process().start(known)(Call.of(function, known.name, args, kwargs))

            wrapper: Any = call_async
        else:

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                refuse_in_loop(f"{known.name}()", f"asyncio.to_thread({known.name}, ...)")
                return process().start(known)(Call.of(function, known.name, args, kwargs))

            wrapper = call
        wrapper.__eventic_function__ = known
        process().defined(known)
        return wrapper  # type: ignore[no-any-return]

    return decorate


def entry(
    known: Function, journal: Callable[[], Journal], ended: Callable[[str, BaseException | None], object]
) -> Callable[[Call], Any]:
    """Make what DBOS runs for a workflow: the body, with records that go on record.

    Args:
        known: The workflow.
        journal: Makes the journal of the execution that calls.
        ended: Called with the run's id when the body has ended, and what it raised.
    """

    def body(stack: ExitStack, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own = journal()

        def note_end(_kind: object, error: BaseException | None, _traceback: object) -> None:
            ended(own.run_id, error)

        stack.push(note_end)
        values = call.values
        with using_store(None):
            args, kwargs = call.arguments()
        recording: Any = RecordingStore(own)
        stack.enter_context(using_store(recording))
        stack.enter_context(ids_from(own.new_id))
        stack.enter_context(reserving(own.reserve))
        stack.enter_context(acting(actor=values["actor"], correlation_id=values["correlation_id"]))
        stack.enter_context(running(workflow_id=own.run_id, step_id=None))
        version = own.store.work.app_version
        stack.enter_context(tracing.span("workflow", known.name, values, run__id=own.run_id, app_version=version))
        token = _journal.set(own)
        stack.callback(_journal.reset, token)
        return args, kwargs

    if known.is_async:

        async def enter_async(call: Call) -> Any:
            with ExitStack() as stack:
                args, kwargs = body(stack, call)
                return await known.plain(*args, **kwargs)

        return enter_async

    def enter(call: Call) -> Any:
        with ExitStack() as stack:
            args, kwargs = body(stack, call)
            return known.plain(*args, **kwargs)

    return enter


# -- steps


def step(process: Callable[[], Process], name: str | None, retry: Retry) -> Callable[[_Function], _Function]:
    """Make the decorator `Eventic.step`; see there."""

    def decorate(function: _Function) -> _Function:
        known = Function(name=name_of(function, name), kind="step", plain=function, retry=retry)
        _register(known)
        options = {
            "retries_allowed": retry.max_attempts > 1,
            "max_attempts": retry.max_attempts,
            "interval_seconds": retry.delay_seconds,
            "backoff_rate": retry.backoff,
        }
        wrapper: Any = (_async_step if known.is_async else _sync_step)(process, known, options)
        wrapper.__eventic_function__ = known
        return wrapper  # type: ignore[no-any-return]

    return decorate


def _sync_step(process: Callable[[], Process], known: Function, options: dict[str, Any]) -> Callable[..., Any]:
    function = known.plain

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if (steps := current_steps()) is not None:
            return steps.call(known.name, functools.partial(call, *args, **kwargs))
        journal = current_journal()
        if in_scope():
            with tracing.span("step", known.name):
                return function(*args, **kwargs)  # part of a transaction that is done once, or not at all
        if journal is None:
            with _step(process(), known, None):
                return function(*args, **kwargs)

        def inside() -> Any:
            with _step(process(), known, journal.run_id):
                return function(*args, **kwargs)

        return process().run_step(known.name, options, inside)

    return call


def _async_step(process: Callable[[], Process], known: Function, options: dict[str, Any]) -> Callable[..., Any]:
    function = known.plain

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if (steps := current_steps()) is not None:
            return await steps.call_async(known.name, functools.partial(call, *args, **kwargs))
        journal = current_journal()
        if journal is None or in_scope():
            with tracing.span("step", known.name):
                return await function(*args, **kwargs)

        async def inside() -> Any:
            with _step(process(), known, journal.run_id):
                return await function(*args, **kwargs)

        return await process().run_step_async(known.name, options, inside)

    return call


def step_context(store: PostgresStore, known: Function, key: str | None) -> ExitStack:
    """Open what surrounds a step's function: it reads records as they are, writes none, and knows its key."""
    stack = ExitStack()
    reading: Any = StepStore(store, known.name)
    stack.enter_context(using_store(reading))
    stack.enter_context(ids_from(None))
    stack.enter_context(reserving(None))
    for variable, value in ((_journal, None), (_idempotency_key, key or idempotency_key())):
        token = variable.set(value)  # type: ignore[arg-type]
        stack.callback(variable.reset, token)  # type: ignore[arg-type]
    return stack


def _step(process: Process, known: Function, run_id: str | None) -> ExitStack:
    if not process.is_connected:
        return ExitStack()
    number = 0 if run_id is None else process.step_number()
    stack = step_context(process.store, known, None if run_id is None else f"{run_id}-{number}")
    stack.enter_context(tracing.span("step", known.name, run__id=run_id, step__id=number or None))
    return stack


# -- transactions


class Transaction(edit_scope):
    """A unit of work that also decorates functions, sync and async; see `Eventic.transaction`."""

    def __init__(self, *, name: str | None = None, reason: str | None = None) -> None:
        instead = "`async with Eventic.transaction()`"
        super().__init__(reason=reason, call="transaction()", instead=instead)
        self._name = name

    def __call__(self, function: _Function) -> _Function:
        """Make a function a transaction."""
        known = Function(name=name_of(function, self._name), kind="transaction", plain=function)
        _register(known)
        wrapper: Any = _async_transaction(known) if known.is_async else _sync_transaction(known)
        wrapper.__eventic_function__ = known
        return wrapper  # type: ignore[no-any-return]


def _sync_transaction(known: Function) -> Callable[..., Any]:
    function = known.plain

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        journal = current_journal()
        if journal is None or in_scope():
            scope = edit_scope(default_reason=function.__name__, call=f"{known.name}()", instead="an async function")
            with tracing.span("transaction", known.name), scope:
                return function(*args, **kwargs)

        borrowed = Borrowed((*args, *kwargs.values()))

        def body() -> Any:
            with edit_scope(default_reason=function.__name__):
                return borrowed.note(function(*args, **kwargs))

        def attempt(finish: Finish, number: int) -> Any:
            span = tracing.span("transaction", known.name, run__id=journal.run_id, step__id=number)
            with outside_journal(), span:
                return run_in_transaction(journal.store, body, finish, run_id=journal.run_id, step_id=number)

        return borrowed.take(journal.store, journal.transaction(known.name, attempt))

    return call


def _async_transaction(known: Function) -> Callable[..., Any]:
    function = known.plain

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        journal = current_journal()
        if journal is None or in_scope():
            with tracing.span("transaction", known.name):
                async with edit_scope(default_reason=function.__name__):
                    return await function(*args, **kwargs)
        import asyncio

        loop = asyncio.get_running_loop()
        borrowed = Borrowed((*args, *kwargs.values()))

        async def body() -> Any:
            async with edit_scope(default_reason=function.__name__):
                return await in_thread(borrowed.note, await function(*args, **kwargs))

        def attempt(finish: Finish, number: int) -> Any:
            span = tracing.span("transaction", known.name, run__id=journal.run_id, step__id=number)
            with outside_journal(), span:
                unit = run_in_transaction_async(journal.store, body, finish, run_id=journal.run_id, step_id=number)
                return asyncio.run_coroutine_threadsafe(unit, loop).result()

        outcome = await in_thread(journal.transaction, known.name, attempt)
        with reserving(None):
            return await in_thread(borrowed.take, journal.store, outcome)

    return call


def outside_journal() -> ExitStack:
    """Leave the run's journal for a while: what is called is one step of it."""
    stack = ExitStack()
    stack.enter_context(reserving(None))
    token = _journal.set(None)
    stack.callback(_journal.reset, token)
    return stack
