"""Typed references from one record to another: floating (the current version) or pinned to a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args
from uuid import UUID

from pydantic_core import core_schema

from eventic_core.records.blocking import in_thread

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from eventic_core.records.record import Record

T = TypeVar("T", bound="Record")


class Ref(Generic[T]):
    """Points at a record of a class: `customer: Ref[Customer]`.

    Stored as `"<id>"`, or `"<id>@<version>"` when pinned. A field takes a record (floating), a `Ref`, an id or the
    stored form. That the record exists is checked when it is read, not when the reference is written.
    """

    __slots__ = ("_cls", "id", "version")
    __eventic_ref__ = True

    def __init__(self, target: T | UUID, *, version: int | None = None, cls: type[T] | None = None) -> None:
        self._cls: Any = cls or (None if isinstance(target, UUID) else type(target))
        self.id: UUID = target if isinstance(target, UUID) else target.id
        self.version: int | None = version

    @classmethod
    def pinned(cls, record: T) -> Ref[T]:
        """Refer to exactly the version the object is."""
        return cls(record, version=record.version)

    def get(self) -> T:
        """Read the record: its current version, or the pinned one.

        Raises:
            RecordNotFound: It is not stored, or is of another class.
            RecordDeleted: Floating, and the record is deleted.
        """
        found: T = self._cls.hydrate(self.id, version=self.version)
        return found

    async def get_async(self) -> T:
        """Read the record without blocking the event loop; see `get`."""
        return await in_thread(self.get)

    def __str__(self) -> str:
        return str(self.id) if self.version is None else f"{self.id}@{self.version}"

    def __repr__(self) -> str:
        return f"Ref({self!s})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and (self.id, self.version) == (other.id, other.version)

    def __hash__(self) -> int:
        return hash((self.id, self.version))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        target = next(iter(get_args(source)), None)

        def parse(value: Any) -> Ref[Any]:
            return _parse(target, value)

        return core_schema.no_info_plain_validator_function(parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "format": "eventic-ref", "examples": ["<id>", "<id>@<version>"]}


def _parse(target: Any, value: Any) -> Ref[Any]:
    name = getattr(target, "__name__", "a record")
    if isinstance(value, Ref):
        if value._cls is not None and isinstance(target, type) and not issubclass(value._cls, target):
            message = f"the reference is to {value._cls.__name__}, the field takes {name}"
            raise ValueError(message)
        return Ref(value.id, version=value.version, cls=target)
    if hasattr(type(value), "__eventic__"):
        if not isinstance(value, target):
            message = f"the record is a {type(value).__name__}, the field refers to {name}"
            raise ValueError(message)
        return Ref(value.id, cls=target)
    if isinstance(value, UUID):
        return Ref(value, cls=target)
    if isinstance(value, str):
        record_id, _, version = value.partition("@")
        if version and not version.isdecimal():
            message = f"{value!r} is no reference: after @ comes a version number"
            raise ValueError(message)
        return Ref(UUID(record_id), version=int(version) if version else None, cls=target)
    message = f"{value!r} is no reference to {name}: give the record, a Ref, its id, or '<id>@<version>'"
    raise ValueError(message)
