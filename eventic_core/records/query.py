"""Queries and reads: hydrate, where, as of, history, blame and the change feed, as values of the record class.

Owns how stored versions become objects, and that inside a scope reads see and return the scope's own. Knows the store
through its port.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import UUID

from pydantic_core import from_json, to_json

from eventic_core.errors import Conflict, HistoryRemoved, Invalid, InvalidFilter, RecordDeleted, RecordNotFound
from eventic_core.records import diff, state
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import current_scope
from eventic_core.records.fields import expression, order_of, property_expression
from eventic_core.records.filters import Filter, Group, Kind, Selection
from eventic_core.records.port import Cursor, current_store, installed_store
from eventic_core.records.record_class import class_for, family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from eventic_core.records.fields import FieldExpression
    from eventic_core.records.port import StoredVersion, Transaction
    from eventic_core.records.record import Record

R = TypeVar("R", bound="Record")

_FEED_BATCH = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of a query: its records, and the cursor of the next one, `None` on the last."""

    items: list[R]
    next: str | None


def parse_id(cls: type[Record], record_id: UUID | str) -> UUID:
    """Accept an id in either form.

    Raises:
        RecordNotFound: It is no UUID, so nothing is stored under it.
    """
    if isinstance(record_id, UUID):
        return record_id
    try:
        return UUID(record_id)
    except (ValueError, AttributeError, TypeError):
        message = f"{record_id!r}"
        raise not_found(cls.__name__, message) from None  # type: ignore[arg-type]


def not_found(class_name: str, record_id: UUID, what: str = "") -> RecordNotFound:
    """Make the error for an id under which no such record is stored."""
    return RecordNotFound(f"No {class_name} {record_id}{what} is stored. Check the id and the class.")


def no_version(class_name: str, record_id: UUID, version: int) -> RecordNotFound:
    """Make the error for a version that is not stored: because it never was, or because retention has removed it."""
    head = installed_store().head(record_id)  # a look that a workflow does not put on record
    if head is None or not 0 <= version <= head.version:
        return not_found(class_name, record_id, f" version {version}")
    return HistoryRemoved(
        f"Version {version} of {class_name} {record_id} is not stored any more: retention has removed it. Its current "
        f"version is {head.version}; its history() lists what is kept."
    )


def transaction() -> Transaction | None:
    """Give the transaction that reads of this task join; flushes the open scope first."""
    scope = current_scope()
    if scope is None:
        return None
    scope.flush()
    return scope.read_transaction()


def to_object(cls: type[R], row: StoredVersion) -> R | None:
    """Build the object for a stored version as `cls` or its subclass; `None` for another class."""
    known = class_for(cls, row.class_type)
    return None if known is None else state.from_row(known, row)


def in_current_scope(record: R) -> R:
    """Give the open scope's own object for a current version: its earlier one, or this one from now on."""
    scope = current_scope()
    if scope is None:
        return record
    known = scope.find(record.id)
    if known is None:
        scope.adopt(record)
        return record
    return cast("R", known)


def hydrate(cls: type[R], record_id: UUID | str, version: int | None) -> R:
    """Read one record, current or at an exact version; see `Record.hydrate`."""
    key = parse_id(cls, record_id)
    scope = current_scope()
    if version is None and scope is not None and (known := scope.find(key)) is not None:
        if not isinstance(known, _origin(cls)):
            raise not_found(cls.__name__, key)
        if scope.is_deleting(key):
            message = f"{cls.__name__} {key} is deleted in this scope."
            raise RecordDeleted(message)
        state.refuse_deleted(known)
        return cast("R", known)
    store = current_store()
    joined = scope.read_transaction() if scope is not None and version is None else transaction()
    row = store.head(key, joined) if version is None else store.version(key, version, joined)
    if row is None and version is not None:
        raise no_version(cls.__name__, key, version)
    record = _live(cls, key, row, "" if version is None else f" version {version}")
    return record if version is not None else in_current_scope(record)


def _origin(cls: type[Any]) -> type[Any]:
    origin: type[Any] = cls.__pydantic_generic_metadata__["origin"] or cls
    return origin


def _live(cls: type[R], key: UUID, row: StoredVersion | None, what: str) -> R:
    record = None if row is None else to_object(cls, row)
    if record is None:
        raise not_found(cls.__name__, key, what)
    state.refuse_deleted(record)
    return record


def version_of(record: R, version: int) -> R:
    """Read a version of a record, as an object of its own.

    Raises:
        RecordNotFound: There is no such version.
    """
    row = current_store().version(record.id, version, transaction())
    if row is None:
        raise no_version(type(record).__name__, record.id, version)
    return state.from_row(type(record), row)


def tombstone(cls: type[R], record_id: UUID | str) -> R:
    """Read a deleted record, to bring it back.

    Raises:
        RecordNotFound: No record of the class has the id.
        Conflict: It is not deleted.
    """
    key = parse_id(cls, record_id)
    row = current_store().head(key, transaction())
    record = None if row is None else to_object(cls, row)
    if record is None:
        raise not_found(cls.__name__, key)
    if not record.deleted:
        message = f"{cls.__name__} {key} is not deleted (version {record.version}), so there is nothing to restore."
        raise Conflict(message)
    return in_current_scope(record)


def refresh(record: Record) -> None:
    """Make an object the current version; see `Record.refresh`."""
    scope = current_scope()
    row = current_store().head(record.id, scope.read_transaction() if scope else None)
    fresh = _live(type(record), record.id, row, "")
    if scope is not None:
        scope.enlist(record)
    state.restore(state.snapshot(fresh)._replace(record=record))


def history(record: R, limit: int | None, before: int | None) -> list[R]:
    """Read past versions, newest first; see `Record.history`."""
    rows = current_store().history(record.id, limit=limit, before=before, tx=transaction())
    cls = type(record)
    return [state.from_row(class_for(cls, row.class_type) or cls, row) for row in rows]


def blame(record: Record) -> dict[str, diff.Blame]:
    """Find who set each present value; see `Record.blame`."""
    versions = [past for past in reversed(history(record, None, None)) if not past.deleted]
    return diff.blame((past.version, state.current_document(past), past.stamp) for past in versions)


def changes(cls: type[R], after: Cursor, limit: int | None) -> Iterator[R]:
    """Read the change feed; see `Record.changes`."""
    store, left = current_store(), limit
    while left is None or left > 0:
        refuse_in_loop(f"{cls.__name__}.changes", f"asyncio.to_thread(list, {cls.__name__}.changes(after))")
        batch = min(_FEED_BATCH, left) if left is not None else _FEED_BATCH
        rows = store.changes(family(cls), after, batch)
        for row in rows:
            record = to_object(cls, row)
            assert record is not None
            yield record
        if len(rows) < batch:
            return
        after = Cursor(rows[-1].stamp.xid, rows[-1].stamp.position)
        left = None if left is None else left - len(rows)


def _oldest_kept(record_id: UUID) -> datetime | None:
    """Tell since when versions of a record are kept whose first ones were removed; `None` if it is whole."""
    store = installed_store()
    if store.version(record_id, 0) is not None:
        return None
    kept = store.history(record_id, limit=None, before=None)
    return kept[-1].stamp.recorded_at if kept else None


class AsOf(Generic[R]):
    """A record class as it was at a moment; made by `Record.as_of`."""

    def __init__(self, cls: type[R], moment: datetime) -> None:
        if moment.tzinfo is None:
            message = f"as_of({moment!r}): the moment has no time zone. Use an aware datetime."
            raise Invalid(message)
        self._cls = cls
        self._moment = moment

    def hydrate(self, record_id: UUID | str) -> R:
        """Read the version that was current then.

        Raises:
            RecordNotFound: The record did not exist then.
            HistoryRemoved: Retention has removed what was there before what is kept.
            RecordDeleted: It was deleted then.
        """
        refuse_in_loop("as_of(...).hydrate", "hydrate_async")
        key = parse_id(self._cls, record_id)
        row = current_store().at(key, self._moment, transaction())
        if row is None and (oldest := _oldest_kept(key)) is not None:
            message = (
                f"{self._cls.__name__} {key} as of {self._moment.isoformat()} is not stored any more: retention has "
                f"removed what was before {oldest.isoformat()}."
            )
            raise HistoryRemoved(message)
        return _live(self._cls, key, row, f" at {self._moment.isoformat()}")

    async def hydrate_async(self, record_id: UUID | str) -> R:
        """Read the version that was current then, without blocking; see `hydrate`."""
        return await in_thread(self.hydrate, record_id)

    def where(self, *filters: Filter, **equal: Any) -> Query[R]:
        """Query the records as they were then.

        Raises, once it is read:
            HistoryRemoved: Retention has removed versions of the class that were current then.
        """
        return Query(self._cls, Selection(family(self._cls), moment=self._moment)).where(*filters, **equal)


class Query(Generic[R]):
    """A query over a class and its subclasses; immutable, runs when read, may be read again.

    Iterating streams with a server-side cursor; `all` gives a list. Tombstones are not found. Conditions
    see documents in the form they were stored, at the schema version of their writing.
    """

    __slots__ = ("_cls", "_selection")

    def __init__(self, cls: type[R], selection: Selection) -> None:
        self._cls = cls
        self._selection = selection

    def where(self, *filters: Filter, **equal: Any) -> Query[R]:
        """Add conditions that must all hold; a keyword is a field's or else a property's value.

        Raises:
            InvalidFilter: Not a filter, or a value of the wrong kind.
        """
        parts = [self._selection.filter] if self._selection.filter is not None else []
        for given in filters:
            if not isinstance(cast("object", given), Filter):
                message = (
                    f"where({given!r}): that is not a filter. Give some such as Todo.fields.done == True, or keywords."
                )
                raise InvalidFilter(message)
            parts.append(given)
        for name, value in equal.items():
            is_field = name in self._cls.model_fields or name in ("id", "version")
            field = expression(self._cls, name) if is_field else property_expression(self._cls, name)
            parts.append(field == value)
        combined = Group("and", tuple(parts)) if len(parts) > 1 else (parts[0] if parts else None)
        return self._with(filter=combined)

    def order_by(self, *fields: FieldExpression) -> Query[R]:
        """Sort by these, then by id; `-field` or `field.desc()` sorts from high to low. Absent values come last."""
        return self._with(orders=tuple(order_of(field) for field in fields))

    def limit(self, count: int) -> Query[R]:
        """Give at most `count` records."""
        if count < 0:
            message = f"limit({count}): a limit cannot be negative."
            raise InvalidFilter(message)
        return self._with(limit=count)

    def all(self) -> list[R]:
        """Read all matches."""
        refuse_in_loop("all()", "all_async()")
        rows = current_store().select(self._selection, transaction())
        return [self._object(row) for row in rows]

    async def all_async(self) -> list[R]:
        """Read all matches without blocking the event loop."""
        return await in_thread(self.all)

    def first(self) -> R | None:
        """Read the first match; `None` if there is none."""
        found = self.limit(1).all()
        return found[0] if found else None

    async def first_async(self) -> R | None:
        """Read the first match without blocking the event loop."""
        return await in_thread(self.first)

    def count(self) -> int:
        """Count the matches; a limit is ignored."""
        refuse_in_loop("count()", "count_async()")
        return current_store().count(replace(self._selection, limit=None, orders=()), transaction())

    async def count_async(self) -> int:
        """Count the matches without blocking the event loop."""
        return await in_thread(self.count)

    def __iter__(self) -> Iterator[R]:
        refuse_in_loop("iterating a query", "all_async()")
        for row in current_store().stream(self._selection, transaction()):
            yield self._object(row, keep=False)

    def page(self, size: int, *, after: str | None = None) -> Page[R]:
        """Read one keyset page: the next rows after a cursor, whatever was written meanwhile.

        Args:
            size: Records a page, at least 1.
            after: `Page.next` of the page before; `None` is the first page.

        Raises:
            InvalidFilter: The cursor is not one of a query with this order.
        """
        if size < 1:
            message = f"page({size}): a page holds at least one record."
            raise InvalidFilter(message)
        refuse_in_loop("page()", "page_async()")
        keys = None if after is None else self._decode(after)
        rows = current_store().select(replace(self._selection, limit=size + 1, after=keys), transaction())
        more = len(rows) > size
        items = [self._object(row) for row in rows[:size]]
        return Page(items, self._encode(rows[size - 1]) if more else None)

    async def page_async(self, size: int, *, after: str | None = None) -> Page[R]:
        """Read one keyset page without blocking the event loop; see `page`."""
        return await in_thread(self.page, size, after=after)

    def _with(self, **changes: Any) -> Query[R]:
        return Query(self._cls, replace(self._selection, **changes))

    def _object(self, row: StoredVersion, *, keep: bool = True) -> R:
        scope = current_scope()
        if scope is not None and self._selection.moment is None:
            known = scope.find(row.id)
            if known is not None:
                return cast("R", known)
        record = to_object(self._cls, row)
        assert record is not None
        return in_current_scope(record) if keep and self._selection.moment is None else record

    def _encode(self, row: StoredVersion) -> str:
        values: list[Any] = []
        for order in self._selection.orders:
            value: Any = row.document
            if order.path.kind is Kind.COLUMN:
                value = {"id": row.id, "version": row.version, "recorded_at": row.stamp.recorded_at}[order.path.keys[0]]
            else:
                for key in order.path.keys:
                    value = value.get(key) if isinstance(value, dict) else None
            values.append(value)
        return base64.urlsafe_b64encode(to_json([self._shape(), *values, row.id])).decode().rstrip("=")

    def _decode(self, cursor: str) -> tuple[Any, ...]:
        try:
            shape, *keys = from_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except (ValueError, TypeError):
            shape, keys = None, []
        if shape != self._shape() or len(keys) != len(self._selection.orders) + 1:
            message = f"{cursor!r} is not a cursor of this query: it must have the same order."
            raise InvalidFilter(message)
        return tuple(keys)

    def _shape(self) -> str:
        return ",".join("-" * order.descending + ".".join(order.path.keys) for order in self._selection.orders)
