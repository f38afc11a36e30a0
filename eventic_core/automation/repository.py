"""What every repository of entities does: writing and deleting within a unit of work, and reading as `lookup` does.

Owns the checks and the errors of writing. What is written when is the scope's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from eventic_core.automation.children import with_children
from eventic_core.automation.errors import (
    ConcurrencyError,
    DuplicateEntityError,
    EntityNotFoundError,
    RepositoryError,
    translated,
)
from eventic_core.automation.lookup import E, Lookup
from eventic_core.records import acting
from eventic_core.records.editing import edit_scope

if TYPE_CHECKING:
    from uuid import UUID

_USER_CHARACTERS = 100


class Repository(Lookup[E]):
    """The entities of one kind, within a unit of work."""

    use_versioning: ClassVar[bool] = True
    """Every write states the version that was read; there is nothing to switch off."""

    def create(self, entity: E, *, user: str | None = None) -> E:
        """Write a new entity: one that was constructed in the block, or a draft.

        Args:
            entity: New.
            user: Who makes it; default `acting`'s actor.

        Raises:
            DuplicateEntityError: Its id or a unique key is taken. What the block did before stays; the entity is a
                draft that takes no part.
            ValidationError: It cannot be stored, with the same effect.
            RepositoryError: It is of another kind.
        """
        scope = self._work.scope()
        self._check(entity, user)
        tracked = scope.find(entity.id) is entity
        if entity.is_stored and not (tracked and scope.is_new(entity.id)):
            raise DuplicateEntityError(self.entity.__name__, f"{entity.id} is stored (version {entity.version}).")
        with translated():
            scope.flush()  # apart, so that what fails from here on is this entity only
            try:
                self._write_new(entity, user, tracked=tracked)
            except BaseException:
                if scope.find(entity.id) is entity:
                    scope.withdraw(entity)
                raise
        return entity

    def _write_new(self, entity: E, user: str | None, *, tracked: bool) -> None:
        with acting(actor=user), edit_scope() as scope:
            if not tracked:
                scope.enlist(entity)
            if user is not None:
                scope.restamp(entity)
            scope.release(entity)
            scope.flush()

    def update(self, entity_id: UUID | str, entity: E, *, user: str | None = None) -> E:
        """Write what changed of an entity: one version, or one for each move of its status; nothing for nothing.

        Args:
            entity_id: The entity's.
            entity: As the unit of work read or made it.
            user: Who changed it; default whoever acted then.

        Raises:
            ConcurrencyError: It is not tracked, or somebody wrote it since it was read; its changes are kept in memory:
                `refresh` drops them.
            DuplicateEntityError: Its changed unique key is taken.
            EntityNotFoundError: It was constructed, but not created.
            RepositoryError: It is of another kind, or has another id.
        """
        scope = self._work.scope()
        self._check(entity, user)
        if str(entity_id) != str(entity.id):
            message = f"update({entity_id}, ...): that {type(entity).__name__} has the id {entity.id}."
            raise RepositoryError(message)
        if scope.find(entity.id) is not entity:
            read_it = "this unit of work has not read it. Read it with get(), and change that."
            raise ConcurrencyError(self.entity.__name__, entity.id, None, None, read_it)
        if scope.is_held(entity.id):
            raise EntityNotFoundError(self.entity.__name__, entity.id)
        with translated(), acting(actor=user), edit_scope() as inner:
            if user is not None:
                inner.restamp(entity)
            inner.flush()
        return entity

    def delete(
        self,
        entity_id: UUID | str,
        *,
        soft: bool = False,
        user: str | None = None,
        expected_version: int | None = None,
    ) -> bool:
        """Mark an entity deleted by a tombstone version; its history stays, its unique keys are free.

        Args:
            entity_id: The entity's.
            soft: Whether what belongs to it stays; else all its children are deleted likewise, and theirs. Rows are
                removed by an operator's purge only.
            user: Who deletes it.
            expected_version: The version it must be at.

        Returns:
            Whether there was one that is not deleted.

        Raises:
            ConcurrencyError: It is at another version, or somebody wrote it or a child since they were read.
        """
        _check_user(user)
        with translated():
            entity = self.get(entity_id)
            if entity is None:
                return False
            if expected_version is not None and entity.version != expected_version:
                raise ConcurrencyError(self.entity.__name__, entity.id, expected_version, entity.version)
            with acting(actor=user), edit_scope() as scope:
                for each in [entity] if soft else with_children(entity):
                    each.delete()
                scope.flush()
        return True

    def _check(self, entity: object, user: str | None) -> None:
        if not isinstance(entity, self.entity):
            message = f"{type(entity).__name__} is no {self.entity.__name__}: use its own repository."
            raise RepositoryError(message)
        _check_user(user)


def _check_user(user: object) -> None:
    if user is not None and (not isinstance(user, str) or not 0 < len(user.strip()) <= _USER_CHARACTERS):
        message = f"user={user!r}: give a name of 1 to {_USER_CHARACTERS} characters, or None."
        raise RepositoryError(message)
