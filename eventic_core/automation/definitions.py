"""Automations, and the batches of items they are run over: what there is to do.

Owns fields and their checks: a payload fits the automation's schema and its owner exists, whichever way a version is
written. Loading many at once is `loading`'s.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, NoReturn, TypeVar
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import Field, StringConstraints, field_validator

from eventic_core.automation.entity import DomainEntity
from eventic_core.automation.schema import Schema, SchemaValidationResult, SchemaViolation, json_violations, result
from eventic_core.errors import InvalidRecord
from eventic_core.records import plain
from eventic_core.records.documents import same_value
from eventic_core.records.editing import current_scope
from eventic_core.records.port import installed_store
from eventic_core.records.query import to_object
from eventic_core.records.state import current_document, stored_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Self

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
E = TypeVar("E", bound=DomainEntity)

_LISTED_VIOLATIONS = 5


class Automation(DomainEntity, unique=["name"]):
    """What is done to each item of a batch, by name, with JSON Schemas for its payloads.

    Raises:
        InvalidRecord: As any record; a schema that is none is refused when it is given. Payloads that are stored
            already are not looked at again.
    """

    name: Name
    description: str | None = None
    batch_schema: dict[str, Any] | None = None
    item_schema: dict[str, Any] | None = None

    @field_validator("batch_schema", "item_schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            Schema(value)
        return value

    def update_schemas(
        self, *, batch_schema: dict[str, Any] | None = None, item_schema: dict[str, Any] | None = None
    ) -> None:
        """Change one schema or both, as one version; `None` leaves it. To clear one, assign `None` to its field.

        Raises:
            InvalidRecord: One is no JSON Schema; nothing is changed.
        """
        given = {"batch_schema": batch_schema, "item_schema": item_schema}
        self.update(**{name: schema for name, schema in given.items() if schema is not None})

    @plain
    def validate_batch_payload(self, payload: Any) -> SchemaValidationResult:
        """Check a batch's payload; without a schema any JSON is valid."""
        return _judged(self.batch_schema, payload)

    @plain
    def validate_item_payload(self, payload: Any) -> SchemaValidationResult:
        """Check an item's payload; without a schema any JSON is valid."""
        return _judged(self.item_schema, payload)


class _Owned(DomainEntity):
    """What belongs to another entity, which is asked before it is written."""

    __eventic_base__: ClassVar[bool] = True

    @classmethod
    def create_many(
        cls, rows: Iterable[Mapping[str, Any] | Self], *, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Create many through COPY; see `Record.create_many`. Each owner is read once."""
        with _remembering():
            return super().create_many(rows, progress=progress)


class Batch(_Owned, unique=[("automation_id", "name")]):
    """A named group of items of an automation; a payload it has fits the automation's `batch_schema`.

    Raises:
        InvalidRecord: As any record; no such automation is stored, or the payload does not fit.
    """

    automation_id: UUID
    name: Name
    payload: dict[str, Any] | None = None

    def update_payload(self, payload: dict[str, Any] | None) -> None:
        """Give it another payload, or none; raises what an assignment does."""
        self.payload = payload

    def _before_store(self) -> None:
        if not _is_changed(self, "automation_id", "payload"):
            return
        automation = owner_of(self, Automation, "automation_id")
        if self.payload is not None:
            _require_valid(self, automation.record.validate_batch_payload(self.payload))


class Item(_Owned):
    """One piece of a batch; its payload fits the automation's `item_schema`.

    Raises:
        InvalidRecord: As any record; no such batch is stored, or the payload does not fit.
    """

    batch_id: UUID
    sequence_number: int = Field(ge=0)
    payload: Any = None

    def update_payload(self, payload: Any) -> None:
        """Give it another payload; raises what an assignment does."""
        self.payload = payload

    def _before_store(self) -> None:
        if not _is_changed(self, "batch_id", "payload"):
            return
        batch = owner_of(self, Batch, "batch_id")
        automation = owner_of(batch.record, Automation, "automation_id")
        _require_valid(self, automation.record.validate_item_payload(self.payload))


def violations_error(what: str, violations: Sequence[SchemaViolation], **more: Any) -> InvalidRecord:
    """Make the error that lists all violations of a payload, in the form of Pydantic's; `more` goes into each."""
    listed = "; ".join(
        f"{'.'.join(('payload', *map(str, v.loc)))}: {v.message}" for v in violations[:_LISTED_VIOLATIONS]
    )
    left = len(violations) - _LISTED_VIOLATIONS
    errors = [{"loc": ("payload", *v.loc), "msg": v.message, "type": "json_schema", **more} for v in violations]
    rest = f" (and {left} more)" if left > 0 else ""
    return InvalidRecord(f"{what}: {listed}{rest}. Nothing was stored.", errors=errors)


def _judged(schema: dict[str, Any] | None, payload: Any) -> SchemaValidationResult:
    return Schema(schema).validate(payload) if schema is not None else result(json_violations(payload))


def _require_valid(record: DomainEntity, found: SchemaValidationResult) -> None:
    if not found.valid:
        raise violations_error(f"The payload does not fit {type(record).__name__} {record.id}", found.errors)


def _is_changed(record: DomainEntity, *fields: str) -> bool:
    """Tell whether one of the fields differs from what is stored; of a new record all do."""
    if not record.is_stored:
        return True
    before, after = stored_document(record), current_document(record)
    return not all(same_value(before.get(name), after.get(name)) for name in fields)


# -- owners, as the open scope sees them


class _Owner(NamedTuple):
    record: Any
    is_deleted: bool


_known: ContextVar[dict[UUID, _Owner | None] | None] = ContextVar("eventic_known_owners", default=None)


@contextmanager
def _remembering() -> Iterator[None]:
    """Read each owner once inside the block, which creates many records."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def owner_of(record: DomainEntity, cls: type[DomainEntity], field: str) -> _Owner:
    """Find what a record belongs to; a deleted owner may keep what it has, but gets nothing new.

    Raises:
        InvalidRecord: There is none.
    """
    owner_id: UUID = getattr(record, field)
    known = _known.get()
    if known is None:
        owner = _read(cls, owner_id)
    else:
        if owner_id not in known:
            known[owner_id] = _read(cls, owner_id)
        owner = known[owner_id]
    if owner is None or (owner.is_deleted and not record.is_stored):
        _refuse(record, cls, field, "no" if owner is None else "a deleted")
    return owner


def _refuse(record: DomainEntity, cls: type[DomainEntity], field: str, which: str) -> NoReturn:
    name = cls.__name__
    reason = f"{field} {getattr(record, field)} is that of {which} {name}"
    message = f"{type(record).__name__} {record.id}: {reason}. Store the {name} first. Nothing was stored."
    raise InvalidRecord(message, errors=[{"loc": (field,), "msg": reason, "type": "owner_not_found"}])


def _read(cls: type[E], owner_id: UUID) -> _Owner | None:
    """Read an owner without making it the scope's: the user may hold another object for it.

    Nor is it a step of a workflow's body: a check must not cost one, and of writes that are gathered there only the
    first step of each has its place.
    """
    scope = current_scope()
    known = scope.find(owner_id) if scope is not None else None
    if scope is not None and known is not None:
        return _Owner(known, known.deleted or scope.is_deleting(owner_id)) if isinstance(known, cls) else None
    transaction = scope.read_transaction() if scope is not None else None
    row = installed_store().head(owner_id, transaction)
    found = None if row is None else to_object(cls, row)
    return None if found is None else _Owner(found, found.deleted)
