"""What an item's function is told, and what it may answer beside a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from eventic_core.errors import Invalid

if TYPE_CHECKING:
    from uuid import UUID


class ItemContext(NamedTuple):
    """Where an item's function runs.

    Attributes:
        run_id: The run.
        batch_execution_id: The batch's part in it.
        item_id: The item.
        item_execution_id: The item's part in it.
        number: The item's place in the run, from 1.
        attempt: Which attempt this is, from 1; one that was snoozed does not count.
        correlation_id: The run's.
        idempotency_key: For calls to the outside: the same in all attempts of the item in this run.
    """

    run_id: UUID
    batch_execution_id: UUID
    item_id: UUID
    item_execution_id: UUID
    number: int
    attempt: int
    correlation_id: str | None
    idempotency_key: str


class Steering:
    """What a function may return that is no result, but says what is to happen."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Snooze(Steering):
    """Return it to have the item done again in so many seconds; it costs no attempt, and what was written is kept."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            message = f"Snooze({self.seconds!r}): say how many seconds, 0 or more."
            raise Invalid(message)


@dataclass(frozen=True, slots=True)
class Cancel(Steering):
    """Return it to end the item as cancelled; the rest of the run goes on, and what was written is kept."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Skip(Steering):
    """Return it to end the item as skipped: there was nothing to do; what was written is kept."""

    reason: str | None = None
