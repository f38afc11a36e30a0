"""The record class users inherit from: construction, assignment, and the verbs of a record.

Owns the public surface of one record. How values are kept is `state`'s, when they are written is `scope`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from pydantic import ValidationError

from eventic_core.errors import Invalid, InvalidRecord, VersionConflict
from eventic_core.records import bulk, query, state
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.diff import Diff, compare
from eventic_core.records.editing import edit_scope
from eventic_core.records.filters import Filter, Selection
from eventic_core.records.identity import Identified
from eventic_core.records.port import Cursor
from eventic_core.records.record_class import family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import Self

    from eventic_core.records.diff import Blame
    from eventic_core.records.query import AsOf, Query


class Record(Identified):
    """An ordinary Pydantic model whose every change is a new, immutable version.

    Calling the class stores version 0; assigning a field, leaving an edit block, or a public method that assigned
    something stores the next. Validating, copying and unpickling store nothing: they give a draft (version -1), or
    a copy of the stored version.

    Class keywords: `class_type` (stored name, default the class's), `unique` (fields, or tuples of fields),
    `indexes` (fields to index), `schema_version` and `upcasters` (`{from_version: function of a document}`), `merge`
    (`"disjoint"` re-applies changes to other fields than a concurrent writer's); for its queue `concurrency` (work of
    the class that one worker runs at a time, default 16), `ordered` (`False` gives up the order per record for speed)
    and `run` (`"both"`: each method call runs again later, see `evented`).

    Raises:
        InvalidRecord: The values do not fit, or JSON cannot hold them; nothing is stored.
        RecordExists: `id=` names a record that is stored already.
        DuplicateKey: A unique key is taken.
        BlockingInLoop: In a running event loop; await `create_async` there.
    """

    __eventic_base__: ClassVar[bool] = True

    # -- construction and assignment

    @classmethod
    def _create(cls, values: dict[str, Any]) -> Self:
        with edit_scope(call=f"{cls.__name__}(...)", instead=f"{cls.__name__}.create_async(...)") as scope:
            record = cls._new(values)
            scope.enlist(record)
        return record

    @classmethod
    def _new(cls, values: dict[str, Any]) -> Self:
        if cls.__dict__.get("__eventic_base__"):
            message = "Record itself cannot be stored: define a class that inherits from it."
            raise InvalidRecord(message)
        given = values.pop("id", None)
        try:
            record: Self = cls.draft(values)
            state.prepare_draft(record, given if given is None or isinstance(given, UUID) else UUID(given))
        except ValidationError as error:
            raise state.invalid(cls.__name__, error, "These values do not fit") from error
        except (ValueError, AttributeError, TypeError) as error:
            message = f"{cls.__name__}(id={given!r}): an id is a UUID, and only for a new record. {error}"
            raise InvalidRecord(message) from error
        return record

    @classmethod
    async def create_async(cls, **values: Any) -> Self:
        """Store version 0 without blocking the event loop; takes and raises what calling the class does."""
        async with edit_scope() as scope:
            record = cls._new(values)
            scope.enlist(record)
        return record

    if not TYPE_CHECKING:  # visible to checkers, it would allow any name

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                super().__setattr__(name, value)
                return
            attribute = getattr(type(self), name, None)
            if isinstance(attribute, property) and attribute.fset is not None:
                attribute.__set__(self, value)
                return
            if name not in type(self).model_fields:
                self._refuse_name(name)
            self._assign({name: value}, f"{type(self).__name__}.{name} = ...", f"record.update_async({name}=...)")

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            super().__delattr__(name)
        else:
            self._refuse_name(name)

    def _assign(self, values: dict[str, Any], call: str, instead: str) -> None:
        if not state.is_tracked(self):
            state.assign(self, values)
            return
        state.refuse_deleted(self)
        with edit_scope(self, call=call, instead=instead) as scope:
            if (states := self.__eventic__.states) is not None and states.field in values:
                scope.move(self, values[states.field])
            state.assign(self, values)

    def update(self, **values: Any) -> None:
        """Assign several fields as one version; see assignment.

        Raises:
            InvalidRecord: A name is no field, or a value does not fit; nothing changed.
            VersionConflict: Somebody wrote the record since it was read; nothing changed.
        """
        for name in values:
            if name not in type(self).model_fields:
                self._refuse_name(name)
        self._assign(values, "update()", "record.update_async()")

    async def update_async(self, **values: Any) -> None:
        """Assign fields as one version without blocking the event loop; see `update`."""
        await in_thread(self.update, **values)

    # -- writing

    def edit(self, *, reason: str | None = None) -> edit_scope:
        """Open a block whose changes, to this and other records, become one version each.

        Works with `with` and `async with`. An exception restores every record of the block and stores nothing.

        Args:
            reason: Stamped on the versions.

        Raises:
            Invalid: The record is a draft.
            ChangedOutsideScope: The record was changed in place before.
            VersionConflict: On leaving: somebody wrote a record since it was read; nothing is stored.
        """
        state.refuse_deleted(self)
        if not state.is_tracked(self):
            message = f"This {type(self).__name__} is a draft: change it freely, save() stores it. Nothing to edit yet."
            raise Invalid(message)
        return edit_scope(self, reason=reason, call="edit()", instead="`async with edit()`")

    def save(self) -> None:
        """Store a draft as version 0; of a stored record, store what differs, if anything, as the next version.

        Raises:
            RecordExists: A draft's id is stored already.
            VersionConflict: Somebody wrote the record since it was read.
        """
        state.refuse_deleted(self)
        if not self.is_stored:
            with edit_scope(call="save()", instead="save_async()") as scope:
                scope.enlist(self)
            return
        now = state.snapshot(self)
        try:
            with edit_scope(call="save()", instead="save_async()") as scope:
                # Back to what is stored, or enlisting would find the very changes that are to be stored.
                state.adopt_values(self, state.validated(type(self), state.as_row(self)))
                scope.enlist(self)
                frozen = self.__eventic__.frozen
                state.assign(self, {name: value for name, value in now.values.items() if name not in frozen})
        except BaseException:
            state.restore(now)
            raise

    async def save_async(self) -> None:
        """Store without blocking the event loop; see `save`."""
        await in_thread(self.save)

    def delete(self, *, reason: str | None = None) -> None:
        """Mark the record deleted with a tombstone version; its history stays.

        Raises:
            Invalid: It is a draft.
            RecordDeleted: It is already.
            VersionConflict: Somebody wrote the record since it was read.
        """
        state.refuse_deleted(self)
        if not state.is_tracked(self):
            message = f"This {type(self).__name__} is a draft: nothing is stored that could be deleted."
            raise Invalid(message)
        with edit_scope(reason=reason, default_reason="delete", instead="delete_async()") as scope:
            if not self.is_stored:  # born in this scope: a tombstone marks the end of something
                scope.flush()
            scope.enlist(self, delete=True)

    async def delete_async(self, *, reason: str | None = None) -> None:
        """Mark the record deleted without blocking the event loop; see `delete`."""
        await in_thread(self.delete, reason=reason)

    @classmethod
    def restore(cls, record_id: UUID | str, *, reason: str | None = None) -> Self:
        """Bring a deleted record back, with its last values, as a new version.

        Raises:
            RecordNotFound: No record of the class has the id.
            Conflict: It is not deleted.
            DuplicateKey: Its unique key was taken meanwhile.
        """
        with edit_scope(reason=reason, default_reason="restore", instead="restore_async()") as scope:
            record = query.tombstone(cls, record_id)
            scope.enlist(record, restore=True)
        return record

    @classmethod
    async def restore_async(cls, record_id: UUID | str, *, reason: str | None = None) -> Self:
        """Bring a deleted record back without blocking the event loop; see `restore`."""
        return await in_thread(cls.restore, record_id, reason=reason)

    def revert(self, version: int, *, reason: str | None = None) -> None:
        """Give the record the values it had at `version`, as a new version; nothing if they are the same.

        Raises:
            RecordNotFound: There is no such version.
            VersionConflict: Somebody wrote the record since it was read.
        """
        state.refuse_deleted(self)
        with edit_scope(self, reason=reason, default_reason="revert", instead="revert_async()"):
            state.adopt_values(self, state.shadow(query.version_of(self, version)))

    async def revert_async(self, version: int, *, reason: str | None = None) -> None:
        """Give the record earlier values without blocking the event loop; see `revert`."""
        await in_thread(self.revert, version, reason=reason)

    @classmethod
    def apply(
        cls, body: Mapping[str, Any] | Record, *, id: UUID | str | None = None, expected_version: int | None = None
    ) -> Self:
        """Put a whole record back: replace every field, if it is still at the version the body came from.

        Args:
            body: The fields, and `id` and `version` as a response holds them (`version_id` is ignored).
            id: The record; default the body's.
            expected_version: The version that must be current; default the body's.

        Raises:
            Invalid: No id or version was given, or they differ from the body's.
            InvalidRecord: The values do not fit.
            VersionConflict: The record is at another version.
        """
        values = dict(body) if not isinstance(body, Record) else {n: getattr(body, n) for n in type(body).model_fields}
        values.pop("version_id", None)
        target = _agreed("id", id, values.pop("id", None), str)
        expected = int(_agreed("expected_version", expected_version, values.pop("version", None), int))
        with edit_scope(default_reason="apply", call="apply()", instead="asyncio.to_thread"):
            draft = cls._new(values)
            record = cls.hydrate(target)
            if record.version != expected:
                raise VersionConflict(
                    record.__eventic__.class_type, record.id, expected=expected, actual=record.version
                )
            record._before_change()
            state.adopt_values(record, state.shadow(draft))
        return record

    @classmethod
    def create_many(
        cls, rows: Iterable[Mapping[str, Any] | Self], *, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Create a record for each row through COPY, all or none, in the open scope's transaction or one of its own.

        Args:
            rows: Field values, or drafts. Read once, as it is sent; an iterator may read and change records, and in
                an open scope sees what was sent some thousands of rows ago.
            progress: Called with the number of rows sent so far, every thousand rows and at the end.

        Returns:
            The new ids, in the order of the rows.

        Raises:
            InvalidRecord: A row does not fit; names its number, starting at 1. Nothing is stored.
            DuplicateKey: A unique key is taken. Nothing is stored.
        """
        refuse_in_loop("create_many()", "create_many_async()")
        return bulk.create_many(cls, rows, progress)

    @classmethod
    async def create_many_async(
        cls, rows: Iterable[Mapping[str, Any] | Self], *, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Create many records without blocking the event loop; see `create_many`."""
        return await in_thread(cls.create_many, rows, progress=progress)

    # -- reading

    @classmethod
    def hydrate(cls, record_id: UUID | str, *, version: int | None = None) -> Self:
        """Read a record: its current version, or exactly `version`.

        Inside a scope the current version is the scope's own object, changes included. One statement.

        Raises:
            RecordNotFound: No record of this class has the id, or there is no such version.
            RecordDeleted: It is deleted, or the version is a tombstone.
            EvolutionError: No chain of upcasters reaches the stored version.
        """
        refuse_in_loop(f"{cls.__name__}.hydrate()", f"{cls.__name__}.hydrate_async()")
        return query.hydrate(cls, record_id, version)

    @classmethod
    async def hydrate_async(cls, record_id: UUID | str, *, version: int | None = None) -> Self:
        """Read a record without blocking the event loop; see `hydrate`."""
        return await in_thread(cls.hydrate, record_id, version=version)

    def refresh(self) -> None:
        """Make this object the current version, dropping changes that were not stored.

        Raises:
            RecordDeleted: The record was deleted; the object is unchanged.
        """
        refuse_in_loop("refresh()", "refresh_async()")
        query.refresh(self)

    async def refresh_async(self) -> None:
        """Make this object the current version without blocking the event loop; see `refresh`."""
        await in_thread(self.refresh)

    @classmethod
    def where(cls, *filters: Filter, **equal: Any) -> Query[Self]:
        """Query the current records of the class and its subclasses.

        Args:
            filters: Conditions that must all hold, such as `Todo.fields.done == False`.
            equal: Values that must be equal; a keyword that names no field is a property's.

        Raises:
            InvalidFilter: A filter that makes no sense, or a value of the wrong kind.
        """
        return query.Query(cls, Selection(family(cls))).where(*filters, **equal)

    @classmethod
    def stream(cls) -> Iterator[Self]:
        """Read every current record through a server-side cursor, in bounded memory, by id."""
        return iter(cls.where())

    @classmethod
    def as_of(cls, moment: datetime) -> AsOf[Self]:
        """See the class as it was at a moment.

        The answer is final for moments older than the oldest open transaction.

        Raises:
            Invalid: The moment has no time zone.
        """
        return query.AsOf(cls, moment)

    @classmethod
    def changes(cls, *, after: Cursor | None = None, limit: int | None = None) -> Iterator[Self]:
        """Read the versions of the class and its subclasses in the order of the change feed, up to now.

        No version is skipped or repeated under concurrent commits, and those of one record come in order. Versions
        written since the oldest running transaction began come with a later call.

        Args:
            after: `record.cursor` of the last version handled; `None` is the start.
            limit: Versions at most.
        """
        return query.changes(cls, after or Cursor(), limit)

    def history(self, *, limit: int | None = None, before: int | None = None) -> list[Self]:
        """Read the record's versions, newest first, tombstones included.

        Args:
            limit: Versions at most.
            before: Only versions below this one.
        """
        refuse_in_loop("history()", "asyncio.to_thread(record.history)")
        return query.history(self, limit, before)

    def diff(self, before: int, after: int | None = None) -> Diff:
        """Compare two versions; `after` defaults to the one this object is.

        Raises:
            RecordNotFound: There is no such version.
        """
        refuse_in_loop("diff()", "asyncio.to_thread(record.diff, ...)")
        last = self.version if after is None else after
        documents = [state.current_document(query.version_of(self, number)) for number in (before, last)]
        return compare((before, documents[0]), (last, documents[1]))

    def blame(self) -> dict[str, Blame]:
        """Tell, for each field and property, which version, actor and step set its present value."""
        refuse_in_loop("blame()", "asyncio.to_thread(record.blame)")
        return query.blame(self)


def _agreed(name: str, argument: Any, in_body: Any, kind: Callable[[Any], Any]) -> Any:
    given = [kind(value) for value in (argument, in_body) if value is not None]
    if not given:
        message = f"apply() needs to know the record's {name}: in the body, or as {name}=."
        raise Invalid(message)
    if len(given) > 1 and given[0] != given[1]:
        message = f"apply({name}={given[0]!r}): the body says {given[1]!r}."
        raise Invalid(message)
    return given[0]
