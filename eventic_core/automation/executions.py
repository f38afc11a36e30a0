"""The parts of batches and items in runs: what happened, with a version for every move of the status.

Owns fields and moves. What a worker does about them is in `run_workflow`, `group` and `control`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime  # noqa: TC003 - Pydantic evaluates the annotations
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import Field

from eventic_core.automation.entity import DomainEntity, StatusTracking, move, now
from eventic_core.automation.events import (
    BatchExecutionFailed,
    ItemExecutionFailed,
)
from eventic_core.automation.status import EXECUTION_STATES, ExecutionStatus
from eventic_core.errors import InvalidStateError
from eventic_core.records import plain

if TYPE_CHECKING:
    from typing import Self


S = ExecutionStatus
_VARIANT = {digit: f"{int(digit, 16) & 3 | 8:x}" for digit in "0123456789abcdef"}


class BatchExecution(StatusTracking, DomainEntity, unique=[("run_id", "batch_id")], states=EXECUTION_STATES):
    """A batch's part in a run."""

    run_id: UUID
    batch_id: UUID

    def start(self) -> None:
        """Begin."""
        move(self, S.PROCESSING, started_at=now(), finished_at=None)

    def complete(self) -> None:
        """End well."""
        move(self, S.COMPLETED, finished_at=now())

    def fail(self) -> None:
        """End badly."""
        move(self, S.FAILED, finished_at=now())
        self.register_event(BatchExecutionFailed(self.id, self.run_id, self.batch_id, self.finished_at))

    def cancel(self) -> None:
        """End because it is not wanted any more."""
        move(self, S.CANCELLED, finished_at=now())

    def skip(self) -> None:
        """Leave it out."""
        move(self, S.SKIPPED, finished_at=now())

    def redrive(self) -> None:
        """Begin again with what failed."""
        move(self, S.RETRYING, finished_at=None)


class ItemExecution(StatusTracking, DomainEntity, states=EXECUTION_STATES):
    """An item's part in a run; there is one for each pair, under an id made of the pair."""

    run_id: UUID
    batch_execution_id: UUID
    item_id: UUID
    number: int | None = None
    """Its place in the run, from 1."""
    result_payload: Any = None
    error_message: str | None = None
    error_type: str | None = None
    attempt_count: int = Field(default=0, ge=0)
    max_attempts: int | None = Field(default=None, ge=0)
    due_at: datetime | None = None
    """When the next attempt is due, if that is later than the group it is in takes."""
    steps: list[dict[str, Any]] | None = None
    """What the steps gave that its last attempt called; a replay gives the same again."""

    @classmethod
    def _new(cls, values: dict[str, Any]) -> Self:
        if "id" not in values and "run_id" in values and "item_id" in values:
            values = {"id": item_execution_id(values["run_id"], values["item_id"]), **values}
        return super()._new(values)

    def start(self) -> None:
        """Begin an attempt.

        Raises:
            InvalidStateError: All attempts are used up, or the status does not allow it.
        """
        if self.max_attempts is not None and self.attempt_count >= self.max_attempts:
            raise InvalidStateError(
                "ItemExecution", self.id, f"{self.status} after {self.attempt_count}", "another start"
            )
        attempts = self.attempt_count + 1
        move(self, S.PROCESSING, started_at=now(), finished_at=None, attempt_count=attempts, due_at=None)

    def complete(self, result_payload: Any = None) -> None:
        """End well, with a result that JSON can hold."""
        move(self, S.COMPLETED, result_payload=result_payload, finished_at=now())

    def fail(self, error_message: str, *, error_type: str | None = None) -> None:
        """End an attempt badly: to be tried again while attempts are left, else for good."""
        again = self.can_retry()
        move(
            self,
            S.RETRYING if again else S.FAILED,
            error_message=error_message,
            error_type=error_type,
            finished_at=None if again else now(),
        )
        self.register_event(ItemExecutionFailed(self.id, self.run_id, self.item_id, error_message, self.attempt_count))

    def cancel(self, reason: str | None = None) -> None:
        """End because it is not wanted any more."""
        move(self, S.CANCELLED, error_message=reason or self.error_message, finished_at=now())

    def skip(self, reason: str | None = None) -> None:
        """Leave it out."""
        move(self, S.SKIPPED, error_message=reason or self.error_message, finished_at=now())

    def reopen(self) -> None:
        """Make a failed one pending again."""
        move(self, S.PENDING, finished_at=None)

    @plain
    def can_retry(self) -> bool:
        """Tell whether an attempt is left; without `max_attempts` there is none."""
        return self.max_attempts is not None and self.attempt_count < self.max_attempts


def item_execution_id(run_id: UUID | str, item_id: UUID | str) -> UUID:
    """Make the id of the execution of an item in a run: the same for the same pair, so that there is one.

    A version 7 UUID (RFC 9562, 5.7) with the moment of the run's id, so that those of a run lie together;
    `store/sql/part_execution_id.sql` computes the same.
    """
    run, item = str(run_id), str(item_id)
    digest = hashlib.sha256(f"{run}:{item}".encode()).hexdigest()
    return UUID(f"{run[:8]}{run[9:13]}7{digest[12:15]}{_VARIANT[digest[15]]}{digest[16:31]}")
