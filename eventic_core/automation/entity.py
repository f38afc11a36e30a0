"""What every entity of automations is: a record that knows who made and changed it, and may hold events to publish.

Owns the base class and the two mixins of executions. The entities are in `definitions`, `executions`, `orchestration`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, PrivateAttr

from eventic_core.automation.status import ExecutionStatus
from eventic_core.automation.values import AuditInfo
from eventic_core.errors import Invalid, InvalidStateError
from eventic_core.records import Record, acting
from eventic_core.records.editing import current_scope, edit_scope
from eventic_core.records.port import current_store
from eventic_core.records.query import transaction
from eventic_core.records.state import is_tracked, refuse_deleted, scope_of

if TYPE_CHECKING:
    from eventic_core.automation.events import DomainEvent
    from eventic_core.records.stamp import Stamp


class DomainEntity(Record):
    """A record with the audit fields and events of a domain entity; two are equal if their ids are."""

    __eventic_base__: ClassVar[bool] = True
    _events: list[Any] = PrivateAttr(default_factory=list)
    _first: Any = PrivateAttr(default=None)

    def _first_stamp(self) -> Stamp | None:
        """Give the stamp of version 0, read once; `None` when retention has removed it."""
        if self.version == 0:
            return self.stamp
        if self._first is None:
            row = current_store().version(self.id, 0, transaction())
            self._first = None if row is None else row.stamp
        found: Stamp | None = self._first
        return found

    @property
    def created_at(self) -> datetime | None:
        """When version 0 was stored; `None` for a draft, and when that version was removed."""
        first = self._first_stamp() if self.is_stored else None
        return None if first is None else first.recorded_at

    @property
    def created_by(self) -> str | None:
        """Who stored version 0."""
        first = self._first_stamp() if self.is_stored else None
        return None if first is None else first.actor

    @property
    def updated_at(self) -> datetime | None:
        """When this version was stored; `None` for a draft."""
        return self.stamp.recorded_at if self.is_stored else None

    @property
    def updated_by(self) -> str | None:
        """Who stored this version."""
        return self.stamp.actor if self.is_stored else None

    @property
    def is_active(self) -> bool:
        """Whether it is not deleted."""
        scope = scope_of(self)
        return not (self.deleted or (scope is not None and scope.is_deleting(self.id)))

    @property
    def audit(self) -> AuditInfo:
        """Who made and changed it, and when, as one value."""
        return AuditInfo(self.created_at, self.updated_at, self.created_by, self.updated_by)

    def touch(self, user: str | None = None) -> None:
        """Store a version that changes nothing but when it was updated, and by whom.

        Raises:
            Invalid: It is a draft.
            RecordDeleted: It is deleted.
        """
        refuse_deleted(self)
        self._refuse_draft("touch()")
        level = edit_scope(default_reason="touch", call="touch()", instead="asyncio.to_thread")
        with acting(actor=user), level as scope:
            scope.enlist(self, restore=True)  # which writes it, changed or not

    def deactivate(self) -> None:
        """Delete it, softly: one version; nothing if it is deleted already.

        Raises:
            Invalid: It is a draft.
        """
        if self.is_active:
            self.delete(reason="deactivate")

    def activate(self) -> None:
        """Bring it back: one version; nothing if it is not deleted.

        Raises:
            Invalid: It is a draft.
            DuplicateKey: Its unique key was taken meanwhile.
        """
        self._refuse_draft("activate()")
        with edit_scope(default_reason="activate", call="activate()", instead="asyncio.to_thread") as scope:
            scope.flush()  # it may be about to become a tombstone
            if self.deleted:
                scope.enlist(self, restore=True)

    def _refuse_draft(self, call: str) -> None:
        if not is_tracked(self):
            message = f"{call}: this {type(self).__name__} is a draft. Store it with save()."
            raise Invalid(message)

    def register_event(self, event: DomainEvent) -> None:
        """Keep an event until a unit of work that holds the entity has committed; forget it if the change is undone."""
        self._events.append(event)
        scope = current_scope()
        if scope is not None:
            scope.on_undo(lambda: self._forget(event))

    def _forget(self, event: DomainEvent) -> None:
        self._events = [kept for kept in self._events if kept is not event]

    def pop_events(self) -> list[DomainEvent]:
        """Give the events kept so far, and forget them."""
        events, self._events = self._events, []
        return events


class StatusTracking(BaseModel):
    """Fields of what has a status: with when it began and ended."""

    status: ExecutionStatus = ExecutionStatus.PENDING
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def duration(self) -> float | None:
        """Seconds from its last start to its end; `None` while there is no end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


def move(entity: Any, status: ExecutionStatus, **values: Any) -> None:
    """Move an entity to another status, with other values: one version.

    Raises:
        InvalidStateError: It has the status already, or may not have it next.
    """
    if entity.status == status:
        raise InvalidStateError(type(entity).__name__, entity.id, str(entity.status), str(status))
    entity.update(status=status, **values)


def now() -> datetime:
    """Give the moment, for the times that people look at."""
    return datetime.now(UTC)
