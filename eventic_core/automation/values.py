"""Values: what is equal if its attributes are, and never changes. Knows no record and no database."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from eventic_core.errors import Invalid

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from eventic_core.automation.status import ExecutionStatus


class UnhashableValue(Invalid, TypeError):
    """An attribute of a value object cannot be hashed, so the object would not be a value."""

    code = "unhashable_value"


@dataclass(frozen=True)
class ValueObject:
    """The base of values; decorate what inherits from it with `@dataclass(frozen=True)`.

    Raises:
        UnhashableValue: An attribute cannot be hashed; also a TypeError.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                hash(value)
            except TypeError as error:
                message = (
                    f"{type(self).__name__}.{field.name} is a {type(value).__name__}, which cannot be hashed. "
                    "Give a tuple or a frozenset."
                )
                raise UnhashableValue(message) from error


@dataclass(frozen=True)
class AuditInfo(ValueObject):
    """Who made something and who changed it last, and when."""

    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str | None = None
    updated_by: str | None = None


@dataclass(frozen=True)
class VersionInfo(ValueObject):
    """The number of a version, of something that is no record: those count from 0 by themselves."""

    version: int = 1

    def increment(self) -> VersionInfo:
        """Give the next one."""
        return VersionInfo(self.version + 1)


@dataclass(frozen=True)
class ItemStateHistory(ValueObject):
    """One move of an item execution's status: a view of the version that made it.

    Attributes:
        id: The version's own id.
        previous_status: `None` for the first one.
        changed_at: When the version was stored.
        created_by: Who stored it.
    """

    id: UUID
    item_execution_id: UUID
    new_status: ExecutionStatus
    previous_status: ExecutionStatus | None
    changed_at: datetime
    created_by: str | None

    @property
    def created_at(self) -> datetime:
        """As `changed_at`: nothing writes the history later than the move."""
        return self.changed_at
