"""Pausing queues: nothing of a paused queue is claimed, by any worker, until it is resumed; enqueueing goes on.

A worker hears of it with its next beat, two seconds later at most, and gives back what it has claimed and not begun.
What runs goes on. Both acts are one transaction each, with an `OperatorAct`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.errors import Invalid
from eventic_core.operations.acts import operating, record_act
from eventic_core.records.port import installed_store
from eventic_core.records.stamp import current_origin
from eventic_core.runtime.queues import queue_name
from eventic_core.store.work import DIRECT
from eventic_core.store.workers import PausedQueue

if TYPE_CHECKING:
    from eventic_core.store import PostgresStore

__all__ = ["PausedQueue", "pause_queue", "paused_queues", "resume_queue"]


def pause_queue(name: str, *, reason: str | None = None, request_key: str | None = None) -> bool:
    """Let nothing of a queue be claimed any more. It need not be registered yet.

    Args:
        name: The queue's; one with lanes is paused with what it has without.
        reason: Why; shown with the queue.
        request_key: Given again, nothing is done again.

    Returns:
        Whether it was this call that paused it.

    Raises:
        Invalid: The name is empty, or of the queue that taken over runs go through, which cannot be paused.
    """
    wanted = queue_name(name.strip())
    if not wanted or wanted == DIRECT:
        message = f"The queue {name!r} cannot be paused: name one of `eventic queue list`, but {DIRECT}."
        raise Invalid(message)
    store = _store()
    with operating("pause_queue()", request_key) as tx:
        if tx is not None and store.workers.pause(wanted, by=current_origin().actor, reason=reason, tx=tx):
            record_act("queue.pause", wanted, reason=reason, request_key=request_key)
            return True
    return False


def resume_queue(name: str, *, reason: str | None = None, request_key: str | None = None) -> bool:
    """Let a queue's work be claimed again; tells whether it was paused. Arguments as of `pause_queue`."""
    wanted = queue_name(name.strip())
    store = _store()
    with operating("resume_queue()", request_key) as tx:
        if tx is not None and store.workers.resume(wanted, tx):
            record_act("queue.resume", wanted, reason=reason, request_key=request_key)
            return True
    return False


def paused_queues() -> dict[str, PausedQueue]:
    """Read the paused queues by name, with who paused each, when and why."""
    return _store().workers.paused()


def _store() -> PostgresStore:
    store: Any = installed_store()
    return store  # type: ignore[no-any-return]
