"""Evented methods: a public method of a record is one edit, so its assignments are one version.

Owns the marks `evented` and `plain` and the wrapping of a class's methods. Handlers and queues are the runtime's.
"""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, overload

from eventic_core.errors import InvalidRecordClass, VersionConflict
from eventic_core.records import state
from eventic_core.records.editing import edit_scope, in_scope
from eventic_core.records.port import StaleWrite, current_background
from eventic_core.records.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.records.scope import Scope

_Function = TypeVar("_Function", bound="Callable[..., Any]")

RunTimes = Literal["now", "both"]

_is_second_run: ContextVar[bool] = ContextVar("eventic_second_run", default=False)


@dataclass(frozen=True, slots=True)
class _Options:
    wrapped: bool
    retry: int = 0
    run: RunTimes | None = None


@overload
def evented(function: _Function, /) -> _Function: ...
@overload
def evented(*, retry: int = 0, run: RunTimes | None = None) -> Callable[[_Function], _Function]: ...
def evented(function: Any = None, /, *, retry: int = 0, run: RunTimes | None = None) -> Any:
    """Set options of an evented method; public methods are evented without it.

    A call runs once, now; the handlers of what it changed run later, on the class's queue.

    Args:
        function: The method, when used without arguments.
        retry: How often the method is run again, on the record's current state, when somebody else wrote it in
            between. A call inside another scope is not re-run: the outer scope owns the outcome.
        run: `"both"` runs the method now and, when the call has committed, once more later on a worker, on the record
            as it is then: its effects happen twice. Default: the class keyword `run`, which is `"now"`.

    Raises:
        InvalidRecordClass: `retry` is negative, or `run` is neither.
    """
    if retry < 0:
        message = f"@evented(retry={retry}): the number of re-runs cannot be negative."
        raise InvalidRecordClass(message)

    check_run(run, "@evented")

    def mark(function: _Function) -> _Function:
        function.__eventic_options__ = _Options(wrapped=True, retry=retry, run=run)  # type: ignore[attr-defined]
        return function

    return mark(function) if function is not None else mark


def check_run(run: str | None, where: str) -> None:
    """Refuse a value of `run` that is none.

    Raises:
        InvalidRecordClass: It is.
    """
    if run is not None and run not in get_args(RunTimes):
        message = f'{where}: run={run!r} is not known. Say run="now" or run="both".'
        raise InvalidRecordClass(message)


def second_run() -> Setting[bool]:
    """Let methods called inside a `with` block not ask for another run; for the worker."""
    return Setting(_is_second_run, True)


def plain(function: _Function, /) -> _Function:
    """Leave a public method alone: no edit of its own, each assignment in it stands by itself."""
    function.__eventic_options__ = _Options(wrapped=False)  # type: ignore[attr-defined]
    return function


def wrap_methods(namespace: dict[str, Any], inherited: dict[str, Any]) -> dict[str, Any]:
    """Give the wrapped form of each evented method in a class body, or inherited from a class that is no record.

    Never static and class methods, properties, generators, names with an underscore, or Pydantic's `model_*`.
    """
    return {
        name: _wrap(value)
        for name, value in {**inherited, **namespace}.items()
        if isinstance(value, FunctionType) and _is_evented(name, value)
    }


def _is_evented(name: str, function: FunctionType) -> bool:
    options = getattr(function, "__eventic_options__", None)
    if name.startswith(("_", "model_")) or (options is not None and not options.wrapped):
        return False
    generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return not generator and function.__name__ != "<lambda>"


def _wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    options: _Options = getattr(function, "__eventic_options__", _Options(wrapped=True))
    retry = options.retry
    if inspect.iscoroutinefunction(function):
        return _wrap_async(function, options)
    name = function.__name__

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        left = 0 if in_scope() else retry
        while state.is_tracked(self):
            try:
                with edit_scope(self, default_reason=name, retried=left > 0, method=name) as scope:
                    result = function(self, *args, **kwargs)
                    _run_again(options, scope, self, (name, args, kwargs))
                    return result
            except (VersionConflict, StaleWrite):
                if left <= 0:
                    raise
                left -= 1
                self.refresh()
        return function(self, *args, **kwargs)

    return call


def _run_again(options: _Options, scope: Scope, record: Any, call: tuple[str, Any, Any]) -> None:
    if (options.run or record.__eventic__.run) == "both" and not _is_second_run.get():
        scope.enqueue(current_background().later(record, *call))


def _wrap_async(function: Callable[..., Any], options: _Options) -> Callable[..., Any]:
    name, retry = function.__name__, options.retry

    @functools.wraps(function)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        left = 0 if in_scope() else retry
        while state.is_tracked(self):
            try:
                async with edit_scope(self, default_reason=name, retried=left > 0, method=name) as scope:
                    result = await function(self, *args, **kwargs)
                    _run_again(options, scope, self, (name, args, kwargs))
                    return result
            except (VersionConflict, StaleWrite):
                if left <= 0:
                    raise
                left -= 1
                await self.refresh_async()
        return await function(self, *args, **kwargs)

    return call
