"""Who, why and where: the stamp every version carries, and the context that fills it.

Owns `Stamp` and `acting`. Must not know how stamps are stored.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from eventic_core.records.setting import Setting

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


class Origin(NamedTuple):
    """What the running code says of itself; part of every version written meanwhile.

    Attributes:
        actor: Who acts: a user, a service. `None` when nobody said.
        reason: Why. Beats the name of the method that writes, and is beaten by an edit's own reason.
        correlation_id: The request or case the write belongs to.
        workflow_id: The run that writes; set by the runtime, never by users.
        step_id: The step of that run.
    """

    actor: str | None = None
    reason: str | None = None
    correlation_id: str | None = None
    workflow_id: str | None = None
    step_id: int | None = None


_NOBODY = Origin()
_origin: ContextVar[Origin] = ContextVar("eventic_origin", default=_NOBODY)


def current_origin() -> Origin:
    """Give the origin that writes of this task are stamped with."""
    return _origin.get()


def acting(
    *, actor: str | None = None, reason: str | None = None, correlation_id: str | None = None
) -> Setting[Origin]:
    """Stamp every version written inside a `with` block; nested blocks override what they name.

    Holds for this task and the tasks it starts inside the block, not for new threads.

    Example:
        >>> with acting(actor="ada", reason="import") as origin:
        ...     origin.actor
        'ada'
    """
    outer = _origin.get()
    return stamped(
        outer._replace(
            actor=outer.actor if actor is None else actor,
            reason=outer.reason if reason is None else reason,
            correlation_id=outer.correlation_id if correlation_id is None else correlation_id,
        )
    )


def running(*, workflow_id: str, step_id: int | None) -> Setting[Origin]:
    """Stamp the versions written inside a `with` block with the run and step that write them; for the runtime."""
    return stamped(_origin.get()._replace(workflow_id=workflow_id, step_id=step_id))


def stamped(origin: Origin) -> Setting[Origin]:
    """Stamp the versions written inside a `with` block with exactly this; for the runtime."""
    return Setting(_origin, origin)


class Stamp(NamedTuple):
    """What a stored version says of itself.

    Attributes:
        version_id: The version's own id, different for each version of a record.
        recorded_at: When it became current; aware UTC, later than that of the version before.
        superseded_at: When the next version replaced it; `None` while it was current when read.
        xid: First half of its place in the change feed.
        position: Second half of its place in the change feed.
        tombstone: Whether it marks the record's deletion.
        schema_version: That of the class when it was written.
        calls: The evented methods whose call made it, joined by commas; `None` for none.
    """

    version_id: UUID
    actor: str | None
    reason: str | None
    correlation_id: str | None
    workflow_id: str | None
    step_id: int | None
    schema_version: int
    recorded_at: datetime
    superseded_at: datetime | None
    xid: int
    position: int
    tombstone: bool
    calls: str | None = None
