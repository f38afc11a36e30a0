"""The errors of automations under the names that users of the earlier platform know, in the package's one tree.

    DomainError                   every error of the package: EventicError
    ├─ ValidationError            the values do not fit: InvalidRecord
    ├─ InvalidStateError          the state does not allow the move
    └─ RepositoryError            a repository refuses what was asked
       ├─ EntityNotFoundError     also RecordNotFound, and so a KeyError
       ├─ DuplicateEntityError    also DuplicateKey
       ├─ ConcurrencyError        also VersionConflict
       └─ ReadOnlyError           also NotImplementedError

The first three are the package's own classes; so records raise what `except ValidationError` catches.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from eventic_core.errors import (
    DuplicateKey,
    EventicError,
    InvalidRecord,
    InvalidStateError,
    RecordExists,
    RecordNotFound,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

__all__ = [
    "ConcurrencyError",
    "DomainError",
    "DuplicateEntityError",
    "EntityNotFoundError",
    "InvalidStateError",
    "ReadOnlyError",
    "RepositoryError",
    "ValidationError",
    "translated",
]

DomainError = EventicError
ValidationError = InvalidRecord


class RepositoryError(EventicError):
    """A repository refuses what was asked: an unknown field, a negative page, an entity it does not know."""

    code = "repository"
    http_status = 422


class EntityNotFoundError(RepositoryError, RecordNotFound):
    """No entity of that kind has the id.

    Attributes:
        entity_name: The kind.
        entity_id: The id.
    """

    code = "entity_not_found"
    http_status = 404

    def __init__(self, entity_name: str, entity_id: object) -> None:
        self.entity_name = entity_name
        self.entity_id = entity_id
        super().__init__(f"No {entity_name} {entity_id} is stored, or it is deleted. Check the id and the repository.")


class DuplicateEntityError(RepositoryError, DuplicateKey):
    """An entity with the same id or unique key is there already; what the block did before stays.

    Attributes:
        entity_name: The kind.
        info: What is taken.
    """

    code = "duplicate_entity"
    http_status = 409

    def __init__(self, entity_name: str, info: str) -> None:
        self.entity_name = entity_name
        self.info = info
        super().__init__(f"{entity_name} exists already. {info} Read that one, or choose another key.")


class ConcurrencyError(RepositoryError, VersionConflict):
    """The entity is not at the version the caller thinks, or not one the unit of work has read.

    Attributes:
        entity_name: The kind.
        entity_id: The id.
        expected: The version the caller had read; `None` if it had read none.
        actual: The current version, if known.
        extra: What else is known, such as who wrote in between.
    """

    code = "concurrency"
    http_status = 409

    def __init__(
        self, entity_name: str, entity_id: UUID, expected: int | None, actual: int | None, extra: str = ""
    ) -> None:
        self.entity_name = self.class_type = entity_name
        self.entity_id = self.record_id = entity_id
        self.expected = expected  # type: ignore[assignment]
        self.actual = actual  # type: ignore[assignment]
        self.changed = ()
        self.extra = extra
        current = "another" if actual is None else actual
        state = "is not tracked" if expected is None else f"is not at version {expected} but at {current}"
        EventicError.__init__(self, f"{entity_name} {entity_id} {state}: {extra or 'read it again.'}")


class ReadOnlyError(RepositoryError, NotImplementedError):
    """What is asked to be written is a view: it changes with what it shows."""

    code = "read_only"
    http_status = 403


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of records under the names that users of repositories catch."""
    try:
        yield
    except RepositoryError:
        raise
    except VersionConflict as error:
        extra = error.message.partition(": ")[2]
        raise ConcurrencyError(error.class_type, error.record_id, error.expected, error.actual, extra) from error
    except (DuplicateKey, RecordExists) as error:
        name = error.message.partition(":")[0].partition("(")[0]
        raise DuplicateEntityError(name, error.message) from error
