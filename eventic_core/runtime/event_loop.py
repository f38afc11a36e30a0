"""The event loop of a worker, on which async functions run that its threads call."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

from eventic_core.records.blocking import on_behalf

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class EventLoop:
    """One loop on a thread of its own, begun when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, awaiting it on the loop if it is async."""
        if not inspect.iscoroutinefunction(function):
            return function(*args, **kwargs)
        coroutine: Coroutine[Any, Any, Any] = function(*args, **kwargs)
        with on_behalf():
            return asyncio.run_coroutine_threadsafe(coroutine, self.get()).result()

    def get(self) -> asyncio.AbstractEventLoop:
        """Give the loop, which runs."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="eventic-loop", daemon=True).start()
            return self._loop

    def stop(self) -> None:
        """End it, if it was begun; what still runs on it does not go on."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run an event loop until it is stopped."""
    try:
        loop.run_forever()
    finally:
        loop.close()
