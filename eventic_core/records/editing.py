"""Editing: how a scope is opened, joined and left by `with` and `async with`.

A bare assignment, an edit block, an evented method, a unit of work and a transaction are all an `edit_scope`; one
inside another is a level of the same scope.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from eventic_core.errors import ScopeError
from eventic_core.records.blocking import current_task, in_thread, refuse_in_loop
from eventic_core.records.port import current_store
from eventic_core.records.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from eventic_core.records.identity import Identified
    from eventic_core.records.port import Transaction


_scope: ContextVar[Scope | None] = ContextVar("eventic_scope", default=None)


def current_scope() -> Scope | None:
    """Give the open scope of this task, if there is one."""
    scope = _scope.get()
    return scope if scope is not None and not scope.closed and scope.task == current_task() else None


def in_scope() -> bool:
    """Tell whether this task has an open scope."""
    return current_scope() is not None


class edit_scope:  # noqa: N801 - a context manager, used like a function
    """Open a scope, or join the task's open one; works with `with` and `async with`.

    Args:
        record: Enlisted at once, so that earlier in-place changes are found.
        reason: Stamped on versions that change in this level; beats `acting(reason=)`.
        default_reason: Stamped when nobody gave a reason.
        call: What the user called, for the error in an event loop.
        instead: What to await instead.
        method: The evented method of `record` that is the block.
        retried: Whether the caller runs the block again after a conflict, which then is a bare `StaleWrite`.
        open_transaction: Gives the transaction to write in; the caller ends it. Default: the store's own.

    Raises:
        BlockingInLoop: `with` in a running event loop, where leaving would write.
        VersionConflict: On leaving; see `Scope.leave`. Memory is as it was on entering.
    """

    def __init__(
        self,
        record: Identified | None = None,
        *,
        reason: str | None = None,
        default_reason: str | None = None,
        call: str | None = None,
        instead: str = "the same with `async with`",
        retried: bool = False,
        method: str | None = None,
        open_transaction: Callable[[], Transaction] | None = None,
    ) -> None:
        self._record = record
        self._reasons = (reason, default_reason)
        self._labels = (call, instead)
        self._open_transaction = open_transaction
        self._retried = retried
        self._method = method
        self._scope: Scope | None = None
        self._token: Any = None

    def _enter(self, *, blocking: bool) -> Scope:
        scope = current_scope()
        if scope is None:
            if blocking:
                call, instead = self._labels
                refuse_in_loop(call or f"{self._reasons[1] or 'an edit'}()", instead)
            scope = Scope(current_store(), self._open_transaction)
            scope.retried = self._retried
            self._token = _scope.set(scope)
        elif self._open_transaction is not None:
            message = "A scope is open already: join the other transaction before opening it."
            raise ScopeError(message)
        self._scope = scope
        if self._record is not None and self._method is not None:
            scope.seal_move(self._record)
        scope.enter(*self._reasons)
        if self._record is not None:
            try:
                scope.enlist(self._record)
                if self._method is not None:
                    scope.note_call(self._record, self._method)
            except BaseException:
                self._leave(failed=True)
                self._reset()
                raise
        return scope

    def _leave(self, *, failed: bool) -> None:
        if self._scope is None or self._scope.closed:
            message = "The scope is closed already."
            raise ScopeError(message)
        self._scope.leave(failed=failed)

    def _reset(self) -> None:
        if self._token is not None:
            _scope.reset(self._token)
            self._token = None

    def __enter__(self) -> Scope:
        return self._enter(blocking=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        scope = self._scope
        try:
            self._leave(failed=kind is not None)
        finally:
            self._reset()
        for then in scope.ended if scope is not None else ():
            then()
        return False

    async def __aenter__(self) -> Scope:
        return self._enter(blocking=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        scope = self._scope
        try:
            if scope is not None and not scope.is_idle and (scope.is_outermost or kind is not None):
                await in_thread(self._leave, failed=kind is not None)
            else:
                self._leave(failed=kind is not None)
        finally:
            self._reset()
        for then in scope.ended if scope is not None else ():
            await in_thread(then)
        return False


def required_scope(call: str) -> Scope:
    """Give the open scope of this task.

    Raises:
        ScopeError: None is open.
    """
    scope = current_scope()
    if scope is None:
        message = f"{call} needs an open unit of work or transaction: call it inside `with Eventic.unit_of_work():`."
        raise ScopeError(message)
    return scope
