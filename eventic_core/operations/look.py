"""A look at something that may hang: one at a time, however many ask, and kept for a moment."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Look(Generic[T]):
    """What a function gives, asked for by many threads: it runs in a thread of its own, of which there is one at most.

    Args:
        look: The function.
        kept_seconds: How long what it gave is good enough.
        patience_seconds: How long it may take before whoever asks goes away without an answer.
    """

    def __init__(self, look: Callable[[], T], *, kept_seconds: float, patience_seconds: float) -> None:
        self._look = look
        self._kept_seconds = kept_seconds
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._future: Future[T] | None = None
        self._began_at = self._ended_at = 0.0

    def ask(self) -> T | None:
        """Give what the function gives or lately gave; `None` if it takes too long, then and for those who ask later.

        Raises:
            Exception: What the function raised.
        """
        with self._lock:
            now = time.monotonic()
            future = self._future
            if future is None or (future.done() and now - self._ended_at >= self._kept_seconds):
                future = self._future = Future()
                self._began_at = now
                threading.Thread(target=self._run, args=(future,), name="eventic-look", daemon=True).start()
            left = self._began_at + self._patience_seconds - now
        wait([future], timeout=max(left, 0.0))
        return future.result() if future.done() else None

    def _run(self, future: Future[T]) -> None:
        try:
            found = self._look()
        except BaseException as error:  # noqa: BLE001 - raised again by who asked
            self._ended_at = time.monotonic()
            future.set_exception(error)
        else:
            self._ended_at = time.monotonic()
            future.set_result(found)
