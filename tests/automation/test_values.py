"""Value objects: equal by their attributes, never changed, and the errors under the names users know."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import DuplicateKey, EventicError, InvalidRecord, RecordNotFound, VersionConflict
from eventic_core.automation import (
    AuditInfo,
    Automation,
    ConcurrencyError,
    DomainError,
    DuplicateEntityError,
    EntityNotFoundError,
    ExecutionStatus,
    InvalidStateError,
    ReadOnlyError,
    RepositoryError,
    ValidationError,
    ValueObject,
    VersionInfo,
)


@dataclass(frozen=True)
class Money(ValueObject):
    amount: int
    tags: Any = ()


def test_values_are_equal_by_attributes_and_never_change() -> None:
    assert Money(5) == Money(5)
    assert {Money(5), Money(5), Money(6)} == {Money(6), Money(5)}
    assert Money(5) != VersionInfo(5)
    with pytest.raises(FrozenInstanceError):
        Money(5).amount = 6  # type: ignore[misc]


@pytest.mark.parametrize("unhashable", [[], {}, set(), ([],)])
def test_what_cannot_be_hashed_is_no_value(unhashable: Any) -> None:
    with pytest.raises(TypeError, match=r"Money\.tags"):
        Money(5, unhashable)
    with pytest.raises(EventicError):
        AuditInfo(created_by=unhashable)


def test_a_version_gives_the_next() -> None:
    first = VersionInfo()
    assert (first.version, first.increment(), first.increment().increment()) == (1, VersionInfo(2), VersionInfo(3))
    assert AuditInfo() == AuditInfo(None, None, None, None)


def test_a_status_knows_what_may_follow() -> None:
    pending = ExecutionStatus.PENDING
    assert pending.can_transition_to("PROCESSING")
    assert not pending.can_transition_to(ExecutionStatus.COMPLETED)
    assert [status for status in ExecutionStatus if status.is_finished == status.is_active] == []


ERRORS: list[tuple[EventicError, tuple[type[BaseException], ...]]] = [
    (EntityNotFoundError("Run", uuid4()), (RepositoryError, RecordNotFound, KeyError)),
    (DuplicateEntityError("Run", "that id is taken."), (RepositoryError, DuplicateKey)),
    (ConcurrencyError("Run", uuid4(), 1, 3, "somebody wrote it."), (RepositoryError, VersionConflict)),
    (ConcurrencyError("Run", uuid4(), None, None), (RepositoryError, VersionConflict)),
    (ReadOnlyError("No."), (RepositoryError, NotImplementedError)),
    (InvalidStateError("Run", uuid4(), "FAILED", "complete"), (DomainError,)),
    (ValidationError("No.", errors=[{"loc": ("name",)}]), (DomainError, InvalidRecord, ValueError)),
]


@pytest.mark.parametrize(("error", "caught_by"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_errors_are_caught_by_all_their_names_and_survive_pickling(
    error: EventicError, caught_by: tuple[type[BaseException], ...]
) -> None:
    for kind in (*caught_by, DomainError, EventicError):
        assert isinstance(error, kind)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert error.code != "eventic"
    assert 400 <= error.http_status < 500
    assert str(error).endswith(".")


def test_a_bad_entity_is_a_validation_error(eventic: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Automation(name="  ")
