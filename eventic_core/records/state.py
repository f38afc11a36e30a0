"""A record in memory: its stored identity, validated values, snapshots, and the version it would write next.

Functions on a record's own slots, used by the record class and by scopes; no database, no context.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from eventic_core.errors import ChangedOutsideScope, InvalidRecord, RecordDeleted
from eventic_core.records import documents, evolution
from eventic_core.records.containers import guard, plain
from eventic_core.records.ids import new_id, new_record_id
from eventic_core.records.port import Append, Key, StoredVersion, Written

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.records.identity import Identified
    from eventic_core.records.scope import Scope
    from eventic_core.records.stamp import Origin, Stamp

R = TypeVar("R", bound="Identified")


class Stored(NamedTuple):
    """What the table held when the object was last read or written."""

    version: int
    data: str | bytes
    stamp: Stamp


class Snapshot(NamedTuple):
    """Everything needed to make an object what it was."""

    record: Identified
    values: dict[str, Any]
    fields_set: set[str]
    stored: Stored | None


_set = object.__setattr__
_CONTAINERS = (list, dict, set, tuple)


def stored_of(record: Identified) -> Stored | None:
    """Give what is stored of the record; `None` for a draft."""
    try:
        return record._stored
    except AttributeError:
        return None


def id_of(record: Identified) -> UUID:
    """Give the record's id; a draft gets one when first asked."""
    try:
        return record._id
    except AttributeError:
        made = new_record_id()
        _set(record, "_id", made)
        return made


def prepare_draft(record: Identified, record_id: UUID | None) -> None:
    """Fill the slots of a new record: asking Pydantic for an empty one is slow."""
    _set(record, "_id", record_id or new_record_id())
    _set(record, "_stored", None)
    _set(record, "_scope", None)


def scope_of(record: Identified) -> Scope | None:
    """Give the scope that holds the object, if one does."""
    try:
        return record._scope
    except AttributeError:
        return None


def set_scope(record: Identified, scope: Scope | None) -> None:
    """Note the scope that holds the object."""
    _set(record, "_scope", scope)


def is_tracked(record: Identified) -> bool:
    """Tell whether changes of the object are versions: it is stored, or a scope is about to store it."""
    return stored_of(record) is not None or scope_of(record) is not None


def invalid(name: str, error: ValidationError, what: str) -> InvalidRecord:
    """Make our error from Pydantic's, which stays its cause."""
    problems = error.errors(include_url=False, include_context=False)
    listed = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'the record'}: {p['msg']}" for p in problems[:5])
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""  # noqa: PLR2004 - as many as listed
    return InvalidRecord(f"{what} {name}: {listed}{more}. Nothing was stored.", errors=[dict(p) for p in problems])


def from_row(cls: type[R], row: StoredVersion) -> R:
    """Build the object for a stored version, lifted to the class's schema version.

    Raises:
        EvolutionError: No chain of upcasters reaches the version.
        InvalidRecord: The stored values do not fit the class any more.
    """
    record = validated(cls, row)
    _set(record, "_id", row.id)
    _set(record, "_stored", Stored(row.version, row.data, row.stamp))
    _set(record, "_scope", None)
    guard_containers(record)
    return record


def validated(cls: type[R], row: StoredVersion) -> R:
    """Validate the values of a stored version, lifted to the class's schema version; the result is a draft."""
    definition = cls.__eventic__
    data = row.data
    if row.stamp.schema_version != definition.schema_version:
        document = evolution.upcast(
            definition.class_type,
            documents.load(data),
            stored=row.stamp.schema_version,
            schema_version=definition.schema_version,
            upcasters=definition.upcasters,
        )
        data = to_json(document)
    try:
        record: R = cls.__pydantic_validator__.validate_json(data, by_alias=False, by_name=True)
    except ValidationError as error:
        what = f"Version {row.version} of {row.id} does not fit"
        remedy = "Raise schema_version and add an upcaster."
        raise InvalidRecord(
            f"{invalid(cls.__name__, error, what).message} {remedy}", errors=[dict(e) for e in error.errors()]
        ) from error
    return record


def guard_containers(record: Identified) -> None:
    """Put guarded copies in place of the record's lists, dicts and sets."""
    values = record.__dict__
    for name in type(record).__eventic__.guarded:
        value = values.get(name)
        if isinstance(value, _CONTAINERS):
            values[name] = guard(value, record)


def snapshot(record: Identified) -> Snapshot:
    """Keep what the object is now; later in-place changes do not reach the copy."""
    values = {
        name: plain(value) if isinstance(value, _CONTAINERS) else value for name, value in record.__dict__.items()
    }
    return Snapshot(record, values, set(record.__pydantic_fields_set__), stored_of(record))


def restore(snapshot: Snapshot) -> None:
    """Make the object what it was."""
    record = snapshot.record
    _set(record, "__dict__", dict(snapshot.values))
    _set(record, "__pydantic_fields_set__", set(snapshot.fields_set))
    _set(record, "_stored", snapshot.stored)
    if snapshot.stored is not None:
        guard_containers(record)


def become(record: Identified, row: StoredVersion) -> None:
    """Make the object a stored version, whatever it was."""
    restore(snapshot(from_row(type(record), row))._replace(record=record))
    _set(record, "_id", row.id)


def shadow(record: R) -> R:
    """Give a draft with the same values, to validate a change on before it is swapped in."""
    cls = type(record)
    copy = cls.__new__(cls)
    # Only fields: a cached property computed from the old values must not survive a change.
    values = record.__dict__
    _set(copy, "__dict__", {name: values[name] for name in cls.__pydantic_fields__ if name in values})
    _set(copy, "__pydantic_fields_set__", set(record.__pydantic_fields_set__))
    _set(copy, "__pydantic_extra__", None)
    _set(copy, "__pydantic_private__", record.__pydantic_private__)
    return copy


def assign(record: Identified, values: dict[str, Any]) -> None:
    """Validate assignments on a copy, then swap the result in.

    Raises:
        InvalidRecord: A value does not fit, or the name is no field; the object is unchanged.
    """
    copy = shadow(record)
    validator = type(record).__pydantic_validator__
    try:
        for name, value in values.items():
            validator.validate_assignment(copy, name, plain(value), by_alias=False, by_name=True)
    except ValidationError as error:
        raise invalid(type(record).__name__, error, "These values do not fit") from error
    except RecursionError as error:
        raise _too_deep(record) from error
    adopt_values(record, copy)


def _too_deep(record: Identified) -> InvalidRecord:
    name = type(record).__name__
    return InvalidRecord(f"{name}: a value is nested too deeply, or contains itself. Nothing was stored.")


def adopt_values(record: Identified, source: Identified) -> None:
    """Swap the values of `source`, a draft, into `record`."""
    values = source.__dict__
    if stored_of(record) is not None:
        try:
            values = {
                name: guard(value, record) if isinstance(value, _CONTAINERS) else value
                for name, value in values.items()
            }
        except RecursionError as error:
            raise _too_deep(record) from error
    _set(record, "__dict__", values)
    _set(record, "__pydantic_fields_set__", source.__pydantic_fields_set__)


def current_document(record: Identified) -> dict[str, Any]:
    """Decode what the object would store now."""
    return documents.load(documents.dump(record, max_bytes=1 << 62))


def stored_document(record: Identified) -> dict[str, Any]:
    """Decode what is stored of it, in the form the class gives it today."""
    stored = stored_of(record)
    assert stored is not None
    return documents.load(_canonical(record, stored))


def is_changed(record: Identified, data: bytes) -> bool:
    """Tell whether `data`, the record's document now, differs from what is stored."""
    stored = stored_of(record)
    if stored is None:
        return True
    if stored.data == data:
        return False
    before = _canonical(record, stored)
    return before != data and not documents.same_value(documents.load(data), documents.load(before))


def _canonical(record: Identified, stored: Stored) -> bytes:
    """Give what is stored in the form the class gives it today, made once for a version that was read."""
    if isinstance(stored.data, bytes):
        return stored.data
    data = documents.dump(validated(type(record), as_row(record)), max_bytes=1 << 62)
    _set(record, "_stored", stored._replace(data=data))
    return data


def text_of(stored: Stored) -> str:
    """Give the stored document as text: what a read gives, not yet known to be in the class's own form."""
    return stored.data.decode() if isinstance(stored.data, bytes) else stored.data


def refuse_drift(record: Identified) -> None:
    """Find changes that were made in place where no scope would store them.

    Raises:
        ChangedOutsideScope: There are some; names the fields.
    """
    try:
        data = documents.dump(record, max_bytes=1 << 62)
        if not is_changed(record, data):
            return
        now = documents.load(data)
    except InvalidRecord:
        now = {}
    before = stored_document(record)
    fields = documents.changed_fields(before, now) if now else ("its values",)
    message = (
        f"{type(record).__name__} {record.id}: {', '.join(fields)} changed in place outside an edit scope, where "
        "nobody stores it. Change it inside `with record.edit():`; now call record.save() to store it or "
        "record.refresh() to drop it."
    )
    raise ChangedOutsideScope(message)


def next_version(
    record: Identified,
    origin: Origin,
    *,
    reason: str | None,
    delete: bool,
    restore: bool,
    max_bytes: int,
    calls: tuple[str, ...] = (),
) -> Append | None:
    """Make the version the object would write now; `None` when nothing changed.

    Raises:
        InvalidRecord: A container was changed to something its field refuses, or the document cannot be stored.
    """
    stored = stored_of(record)
    cls = type(record)
    definition = cls.__eventic__
    if not delete and stored is not None:
        _revalidate_containers(record)
    data = documents.dump(record, max_bytes=max_bytes)
    if stored is not None and not delete and not restore and not is_changed(record, data):
        return None
    if definition.states is not None:
        check_state(record, getattr(record, definition.states.field), calls)
    return Append(
        id=id_of(record),
        version=0 if stored is None else stored.version + 1,
        class_type=definition.class_type,
        data=data,
        schema_version=definition.schema_version,
        actor=origin.actor,
        reason=reason,
        correlation_id=origin.correlation_id,
        workflow_id=origin.workflow_id,
        step_id=origin.step_id,
        tombstone=delete,
        keys=_changed_keys(record, data, delete=delete, restore=restore) if definition.unique else (),
        version_id=new_id(),
        calls=",".join(calls) or None,
        before=stored_state(record) if definition.states is not None else None,
    )


def check_state(record: Identified, after: object, calls: tuple[str, ...]) -> None:
    """Refuse a state that may not follow the one that is stored.

    Raises:
        InvalidStateError: It may not.
    """
    definition = record.__eventic__
    assert definition.states is not None
    definition.states.check(definition.class_type, id_of(record), stored_state(record), after, calls)


def stored_state(record: Identified) -> str | None:
    """Give the state that is stored of a record of a class with states; `None` for a draft."""
    states = record.__eventic__.states
    stored = stored_of(record)
    return None if stored is None or states is None else str(documents.load(stored.data)[states.field])


def seal(record: Identified, append: Append) -> None:
    """Make the object, for now, the version that is to be written: what it changes next is one more version."""
    bind(record, append, Written(append, provisional(append)))


def provisional(append: Append) -> Stamp:
    """Make the stamp of a version before it is stored: without its moment and its place in the feed."""
    return append.stamp(datetime.now(UTC), 0, 0)


def _revalidate_containers(record: Identified) -> None:
    frozen = record.__eventic__.frozen
    values = {
        name: value
        for name, value in record.__dict__.items()
        if isinstance(value, _CONTAINERS) and name not in frozen and (value or name != "properties")
    }
    if values:
        assign(record, values)


def _changed_keys(record: Identified, data: bytes, *, delete: bool, restore: bool) -> tuple[Key, ...]:
    unique = record.__eventic__.unique
    if delete:
        return tuple(key._replace(value=None) for key in unique_keys(record, data))
    keys = unique_keys(record, data)
    if stored_of(record) is None:
        return tuple(key for key in keys if key.value is not None)
    if restore:
        return keys
    before = stored_document(record)
    return tuple(key for key, spec in zip(keys, unique, strict=True) if key.value != spec.value_in(before))


def unique_keys(record: Identified, data: bytes) -> tuple[Key, ...]:
    """Give the record's unique keys with their values in `data`."""
    document = documents.load(data)
    return tuple(Key(spec.scope, spec.name, spec.value_in(document)) for spec in record.__eventic__.unique)


def bind(record: Identified, asked: Append, written: Written) -> None:
    """Make the object the version just written; a repeated run takes the values it wrote the first time."""
    append, stamp = written
    if append is not asked:
        values = StoredVersion(append.id, append.version, append.class_type, append.data, stamp)
        adopt_values(record, validated(type(record), values))
    was_draft = stored_of(record) is None
    _set(record, "_id", append.id)
    _set(record, "_stored", Stored(append.version, append.data, stamp))
    if was_draft:
        guard_containers(record)


def refuse_deleted(record: Identified) -> None:
    """Refuse to change a record that is a tombstone.

    Raises:
        RecordDeleted: It is.
    """
    stored = stored_of(record)
    if stored is not None and stored.stamp.tombstone:
        name = type(record).__name__
        message = f"{name} {record.id} is deleted (version {stored.version}). Bring it back with {name}.restore(id)."
        raise RecordDeleted(message)


def as_row(record: Identified) -> StoredVersion:
    """Give the stored version the object is."""
    stored = record._stored
    assert stored is not None
    return StoredVersion(record.id, stored.version, record.__eventic__.class_type, stored.data, stored.stamp)
