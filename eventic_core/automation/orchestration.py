"""Engines outside, their orchestration instances, and which run is linked to which.

Owns fields and moves; adapters that talk to engines come on top.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Pydantic evaluates the annotations
from typing import Annotated, Any
from uuid import UUID  # noqa: TC003

from pydantic import Field, StringConstraints

from eventic_core.automation.entity import DomainEntity, StatusTracking, move, now
from eventic_core.automation.status import EXECUTION_STATES, ExecutionStatus

S = ExecutionStatus


class Engine(DomainEntity, unique=["name"]):
    """An engine outside that runs things for us."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    type: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50)]


class OrchestrationInstance(
    StatusTracking, DomainEntity, unique=[("engine_id", "external_id")], states=EXECUTION_STATES
):
    """One run of an engine outside."""

    engine_id: UUID
    external_id: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    duration_seconds: int | None = None
    instance_metadata: dict[str, Any] | None = None

    def start(self) -> None:
        """Begin."""
        move(self, S.PROCESSING, started_at=now(), finished_at=None)

    def complete(self) -> None:
        """End well."""
        self._end(S.COMPLETED)

    def fail(self) -> None:
        """End badly."""
        self._end(S.FAILED)

    def cancel(self) -> None:
        """End because it is not wanted any more."""
        self._end(S.CANCELLED)

    def skip(self) -> None:
        """Leave it out."""
        self._end(S.SKIPPED)

    def _end(self, status: ExecutionStatus) -> None:
        ended = now()
        seconds = None if self.started_at is None else int((ended - self.started_at).total_seconds())
        move(self, status, finished_at=ended, duration_seconds=seconds)


class RunOrchestration(DomainEntity, unique=[("run_id", "orchestration_instance_id")]):
    """The link between a run and an orchestration instance."""

    run_id: UUID
    orchestration_instance_id: UUID
    attached_at: datetime = Field(default_factory=now)
