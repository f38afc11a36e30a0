"""Blocking calls and event loops: who the running task is, and how an async twin runs its blocking one.

Every `name_async` is `in_thread(name)`: the call runs in a thread on behalf of the task, inside its scope.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from eventic_core.errors import BlockingInLoop
from eventic_core.records.setting import Setting

P = ParamSpec("P")
T = TypeVar("T")

Task = tuple[int, int]
Reserve = Callable[[], AbstractContextManager[object]]

_on_behalf_of: ContextVar[Task | None] = ContextVar("eventic_on_behalf_of", default=None)
_reserve: ContextVar[Reserve | None] = ContextVar("eventic_reserve", default=None)
_allowed = False


def allow_blocking(*, allowed: bool) -> None:
    """Let blocking calls run in an event loop (notebooks); for the facade only."""
    global _allowed  # noqa: PLW0603 - part of the one runtime
    _allowed = allowed


def current_task() -> Task:
    """Identify the running task: its thread and, in an event loop, the asyncio task."""
    return _on_behalf_of.get() or _running_task()


def _running_task() -> Task:
    loop = asyncio._get_running_loop()  # which, unlike its public sister, does not raise: this is asked all the time
    return threading.get_ident(), 0 if loop is None else id(asyncio.current_task(loop))


def refuse_in_loop(call: str, instead: str) -> None:
    """Raise if a blocking call is made in a running event loop.

    Raises:
        BlockingInLoop: It is, and `Eventic.init(blocking_in_loop=True)` was not said.
    """
    if _allowed or asyncio._get_running_loop() is None:
        return
    message = (
        f"{call} would block the running event loop: await {instead} instead, or call it from a thread "
        "(asyncio.to_thread). In a notebook, Eventic.init(blocking_in_loop=True) allows it."
    )
    raise BlockingInLoop(message)


def on_behalf() -> Setting[Task | None]:
    """Let what a `with` block starts, in whatever thread or task, act as the running task: inside its scope."""
    return Setting(_on_behalf_of, current_task())


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread, inside the scope of the awaiting task.

    A cancelled wait still waits for the thread: its outcome is known before the task goes on.
    """
    reserve = _reserve.get()
    # Before the thread: of calls that are gathered, the first to start must come first in the run's steps.
    with on_behalf(), nullcontext() if reserve is None else reserve():
        running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def reserving(reserve: Reserve | None) -> Setting[Reserve | None]:
    """Open `reserve` around each start of a thread inside a `with` block; for the runtime, `None` for nothing."""
    return Setting(_reserve, reserve)


def task_label(task: Task) -> Any:
    """Name a task in a message."""
    return f"thread {task[0]}" + (f", task {task[1]:#x}" if task[1] else "")
