"""What happened, told in the process that made it happen, after its unit of work has committed.

Owns the events and the bus. Durable reactions are handlers: `@on.call(Run.complete)`.
"""

from __future__ import annotations

import inspect
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from eventic_core.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import ThreadPoolExecutor
    from uuid import UUID

_log = logging.getLogger("eventic")
E = TypeVar("E")


@dataclass(frozen=True, kw_only=True)
class DomainEvent:
    """Something that happened, and when."""

    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class ItemExecutionFailed(DomainEvent):
    """An attempt at an item failed, whether it is tried again or not."""

    item_execution_id: UUID
    run_id: UUID
    item_id: UUID
    error_message: str
    attempt_count: int


@dataclass(frozen=True)
class RunCompleted(DomainEvent):
    """A run ended well."""

    run_id: UUID
    automation_id: UUID
    finished_at: datetime | None


@dataclass(frozen=True)
class RunFailed(DomainEvent):
    """A run ended badly."""

    run_id: UUID
    automation_id: UUID
    finished_at: datetime | None
    error_summary: str | None


@dataclass(frozen=True)
class RunCancelled(DomainEvent):
    """A run was cancelled."""

    run_id: UUID
    automation_id: UUID
    finished_at: datetime | None
    cancellation_reason: str | None


@dataclass(frozen=True)
class BatchExecutionFailed(DomainEvent):
    """A batch's part in a run ended badly."""

    batch_execution_id: UUID
    run_id: UUID
    batch_id: UUID
    finished_at: datetime | None


class EventBus:
    """Tells handlers of events in this process, after the unit of work that caused them has committed.

    A handler that raises is logged; the others are called, and the commit stands. Events are in memory: what a crash
    between commit and handler must not lose is for handlers of records, `@on.call(Run.complete)`.

    Args:
        use_async: Call handlers in threads, in no particular order; else at once, in the order they were registered.
        max_workers: How many threads.

    Raises:
        Invalid: There would be no thread.
    """

    def __init__(self, *, use_async: bool = False, max_workers: int = 4) -> None:
        if max_workers < 1:
            message = f"EventBus(max_workers={max_workers}): no handler could run. Say at least 1."
            raise Invalid(message)
        self._use_async = use_async
        self._max_workers = max_workers
        self._handlers: dict[type[Any], list[Callable[[Any], object]]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._lock = threading.Lock()

    def register(self, event_type: type[E], handler: Callable[[E], object]) -> None:
        """Have a function called with each event of exactly this class.

        Raises:
            Invalid: No class, no function, or an async one, which nobody would await.
        """
        given: tuple[object, object] = (event_type, handler)
        if not isinstance(given[0], type) or not callable(given[1]):
            message = f"register{given!r}: give the class of an event, and a function that takes one."
            raise Invalid(message)
        if inspect.iscoroutinefunction(handler):
            message = f"{handler.__qualname__} is async, which the bus would not await. Register a function."
            raise Invalid(message)
        with self._lock:
            self._handlers.setdefault(event_type, []).append(handler)

    def dispatch(self, events: Iterable[object]) -> None:
        """Call the handlers of each event; raises nothing of theirs. After `shutdown` it logs what it did not tell."""
        for event in events:
            for handler in tuple(self._handlers.get(type(event), ())):
                self._deliver(handler, event)

    def shutdown(self, *, wait: bool = True) -> None:
        """Take no more events; harmless when repeated.

        Args:
            wait: Whether to return only when the handlers that were called have ended.
        """
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait)

    def _deliver(self, handler: Callable[[Any], object], event: object) -> None:
        with self._lock:
            if self._closed:
                _log.error("not told to %r, the bus is shut down: %r", handler, event, extra={"action": "event_lost"})
                return
            if self._use_async:
                self._threads().submit(_call, handler, event)
                return
        _call(handler, event)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._max_workers, thread_name_prefix="eventic-events")
        return self._pool


def _call(handler: Callable[[Any], object], event: object) -> None:
    try:
        handler(event)
    except Exception:  # noqa: BLE001 - whatever it is, it is the handler's: the commit stands
        _log.exception("handler %r failed on %r", handler, event, extra={"action": "event_handler_failed"})
