"""Reading entities within a unit of work: by id, by fields and in pages, each the one object the block has for it.

Owns the checks of pages and filters. SQL is the store's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast

from eventic_core.automation.entity import DomainEntity
from eventic_core.automation.errors import EntityNotFoundError, RepositoryError
from eventic_core.errors import InvalidFilter, RecordDeleted, RecordNotFound
from eventic_core.records import current_store, query
from eventic_core.records.fields import expression, order_of
from eventic_core.records.filters import Filter, Group, Selection
from eventic_core.records.record_class import family

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.records.fields import FieldExpression
    from eventic_core.records.port import StoredVersion
    from eventic_core.records.scope import Scope

E = TypeVar("E", bound=DomainEntity)
T = TypeVar("T")
Found = list
"""What reading gives; `list` itself is the name of a method here."""


class Work(Protocol):
    """The unit of work that a repository belongs to."""

    def scope(self) -> Scope:
        """Give its scope, if it is open here; raises `ScopeError` if not."""
        ...


class Lookup(Generic[E]):
    """Reads the entities of one kind; every call raises `ScopeError` when the unit of work is not open.

    In a unit of work there is one object for each entity: whatever reads it again gives the same one, with its changes.
    """

    entity: ClassVar[type[Any]]

    def __init__(self, unit_of_work: Work) -> None:
        self._work = unit_of_work

    # -- reading

    def get(self, entity_id: UUID | str, *, include_soft_deleted: bool = False) -> E | None:
        """Read one by its id; `None` if there is none, or it is deleted and deleted ones are not asked for."""
        scope = self._work.scope()
        try:
            found: E = self.entity.hydrate(entity_id)
        except RecordDeleted:
            return query.tombstone(self.entity, entity_id) if include_soft_deleted else None
        except RecordNotFound:
            return None
        return None if scope.is_held(found.id) else found

    def get_or_raise(self, entity_id: UUID | str, *, include_soft_deleted: bool = False) -> E:
        """Read one by its id.

        Raises:
            EntityNotFoundError: There is none.
        """
        found = self.get(entity_id, include_soft_deleted=include_soft_deleted)
        if found is None:
            raise EntityNotFoundError(self.entity.__name__, entity_id)
        return found

    def exists(self, entity_id: UUID | str, *, include_soft_deleted: bool = False) -> bool:
        """Tell whether there is one with the id."""
        return self.get(entity_id, include_soft_deleted=include_soft_deleted) is not None

    def list(
        self, *, limit: int | None = 100, offset: int = 0, include_soft_deleted: bool = False, **filters: Any
    ) -> Found[E]:
        """Read those whose fields equal the filters, in the order they were made.

        Args:
            limit: How many at most; 0 gives none, `None` all.
            offset: How many to pass over first.
            include_soft_deleted: Whether deleted ones are found too.
            filters: Fields and their values; `None` does not filter.

        Raises:
            RepositoryError: An unknown field, a value of another kind than the field's, or a negative page.
        """
        return self._find(filters, limit=limit, offset=offset, deleted=include_soft_deleted)

    def count(self, *, include_soft_deleted: bool = False, **filters: Any) -> int:
        """Count those whose fields equal the filters; raises and takes what `list` does."""
        scope = self._work.scope()
        selection = self._selection(filters)
        if not include_soft_deleted:
            return current_store().count(selection, query.transaction())
        from eventic_core.store import tombstones

        scope.flush()
        return tombstones.count(selection, scope.transaction)

    def refresh(self, entity: E) -> E:
        """Make a tracked entity what is stored, dropping changes that are not.

        Raises:
            RepositoryError: It is not tracked.
            EntityNotFoundError: It was deleted.
        """
        if self._work.scope().find(entity.id) is not entity:
            message = f"{type(entity).__name__} {entity.id} is not tracked here: read it with get()."
            raise RepositoryError(message)
        try:
            entity.refresh()
        except RecordNotFound as error:
            raise EntityNotFoundError(self.entity.__name__, entity.id) from error
        return entity

    # -- how it finds

    def _find(
        self,
        filters: dict[str, Any],
        *conditions: Filter,
        order: tuple[FieldExpression, ...] = (),
        limit: int | None = 100,
        offset: int = 0,
        deleted: bool = False,
    ) -> Found[E]:
        scope = self._work.scope()
        _check_page(limit, offset)
        selection = self._selection(filters, *conditions)
        rows = None if limit is None else limit + offset
        selection = replace(selection, orders=tuple(order_of(field) for field in order), limit=rows)
        if limit == 0:
            return []
        found: Found[StoredVersion]
        if deleted:
            from eventic_core.store import tombstones

            scope.flush()
            found = tombstones.select(selection, scope.transaction)
        else:
            found = current_store().select(selection, query.transaction())
        return [self._object(row) for row in found[offset:]]

    def _newest(self, filters: dict[str, Any], *, limit: int | None, offset: int) -> Found[E]:
        return self._find(filters, order=(-self._fields.id,), limit=limit, offset=offset)

    def _first(self, filters: dict[str, Any], *, order: tuple[FieldExpression, ...] = ()) -> E | None:
        found = self._find(filters, order=order, limit=1)
        return found[0] if found else None

    def _selection(self, filters: dict[str, Any], *conditions: Filter) -> Selection:
        wanted = list(conditions)
        for name, value in filters.items():
            try:
                field = expression(self.entity, name)
                if value is not None:
                    wanted.append(field == value)
            except InvalidFilter as error:
                raise RepositoryError(error.message) from error
        combined = Group("and", tuple(wanted)) if len(wanted) > 1 else (wanted[0] if wanted else None)
        return Selection(family(self.entity), combined)

    def _object(self, row: StoredVersion) -> E:
        known = self._work.scope().find(row.id)
        if known is None:
            known = query.to_object(self.entity, row)
            assert known is not None
            self._work.scope().adopt(known)
        return cast("E", known)

    @property
    def _fields(self) -> Any:
        return self.entity.fields


def versions_of(unit_of_work: Work, cls: type[E], entity_id: UUID) -> list[E]:
    """Read all versions of an entity, tombstones too, the first one first; none if there is no such entity."""
    unit_of_work.scope().flush()
    rows = current_store().history(entity_id, limit=None, before=None, tx=query.transaction())
    found = [query.to_object(cls, row) for row in reversed(rows)]
    return [version for version in found if version is not None]


def page_of(found: list[T], *, limit: int | None, offset: int) -> list[T]:
    """Give a page of what is in memory.

    Raises:
        RepositoryError: A negative one.
    """
    _check_page(limit, offset)
    return found[offset:] if limit is None else found[offset : offset + limit]


def _check_page(limit: int | None, offset: int) -> None:
    for name, number in (("limit", limit), ("offset", offset)):
        if number is not None and number < 0:
            message = f"{name}={number}: a page cannot be negative."
            raise RepositoryError(message)
