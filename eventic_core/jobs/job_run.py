"""JobRun: what happened to a job once, with a version for every move of the status.

Owns fields and moves. What a worker does about them is the executor's.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Pydantic evaluates the annotations
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import Field, field_validator

from eventic_core.automation.entity import DomainEntity, StatusTracking, move, now
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import InvalidStateError
from eventic_core.jobs.status import JOB_STATES, WAY_TO, status_of
from eventic_core.records import plain
from eventic_core.records.editing import edit_scope

if TYPE_CHECKING:
    from typing import Self

    from eventic_core.records.scope import Scope

S = ExecutionStatus


class JobRun(StatusTracking, DomainEntity, states=JOB_STATES):
    """A job's part in a run of its DAG, or a run of its own.

    A status may be given as a word of the earlier library, `started`, `running`, `completed`, `failed` or `pending`.
    One that is made with a later status than PENDING gets there move by move, each a version.

    Raises:
        InvalidRecord: As any record.
        InvalidStateError: The status does not follow the one it has.
    """

    job_id: UUID | None = None
    """The job, if it is stored."""
    dag_run_id: UUID | None = None
    """The run of the DAG."""
    child_run_id: UUID | None = None
    """The run that its last attempt started, and with which it ends."""
    job: str | None = None
    """The job's name."""
    number: int | None = None
    """Its place in the DAG."""
    attempt_count: int = Field(default=0, ge=0)
    max_attempts: int | None = Field(default=None, ge=0)
    result_payload: Any = None
    error_message: str | None = None
    error_type: str | None = None
    because: str | None = None
    """Why it was skipped, or marked by hand, or from which run it was taken over."""
    after_failure: bool = False
    """Whether it was skipped since something before it failed, and so counts as failed for what comes after."""
    due_at: datetime | None = None
    """When the next attempt is due."""
    steps: list[dict[str, Any]] | None = None
    """What the steps gave that its last attempt called."""

    @field_validator("status", mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return status_of(value)

    @classmethod
    def _create(cls, values: dict[str, Any]) -> Self:
        with edit_scope(call=f"{cls.__name__}(...)", instead=f"{cls.__name__}.create_async(...)") as scope:
            return cls._brought(scope, values)

    @classmethod
    async def create_async(cls, **values: Any) -> Self:
        """Store it without blocking the event loop; takes and raises what calling the class does."""
        async with edit_scope() as scope:
            return cls._brought(scope, values)

    @classmethod
    def _brought(cls, scope: Scope, values: dict[str, Any]) -> Self:
        """Make one, and move it from PENDING to the status it is to have, with the times that are given."""
        status = status_of(values.get("status", S.PENDING))
        way = WAY_TO.get(status, ())
        later = {name: values[name] for name in ("started_at", "finished_at") if name in values} if way else {}
        first = {name: value for name, value in values.items() if name not in later}
        run = cls._new({**first, "status": S.PENDING if way else status})
        scope.enlist(run)
        for step in way:
            if step is S.PROCESSING:
                attempts = max(run.attempt_count, 1)
                move(run, step, started_at=later.get("started_at", now()), attempt_count=attempts)
            else:
                move(run, step, finished_at=later.get("finished_at", now()))
        return run

    def _assign(self, values: dict[str, Any], call: str, instead: str) -> None:
        if "status" in values:
            values = {**values, "status": status_of(values["status"])}
        super()._assign(values, call, instead)

    def start(self) -> None:
        """Begin an attempt.

        Raises:
            InvalidStateError: All attempts are used up, or the status does not allow it.
        """
        if self.max_attempts is not None and self.attempt_count >= self.max_attempts:
            raise InvalidStateError("JobRun", self.id, f"{self.status} after {self.attempt_count}", "another start")
        attempts = self.attempt_count + 1
        move(self, S.PROCESSING, started_at=now(), finished_at=None, attempt_count=attempts, due_at=None)

    def complete(self, result_payload: Any = None) -> None:
        """End well, with a result that JSON can hold."""
        move(self, S.COMPLETED, result_payload=result_payload, finished_at=now())

    def fail(self, error_message: str, *, error_type: str | None = None) -> None:
        """End an attempt badly: to be tried again while attempts are left, else for good."""
        again = self.can_retry()
        status, ended = (S.RETRYING, None) if again else (S.FAILED, now())
        move(self, status, error_message=error_message, error_type=error_type, finished_at=ended)

    def cancel(self, reason: str | None = None) -> None:
        """End because it is not wanted any more."""
        move(self, S.CANCELLED, error_message=reason or self.error_message, finished_at=now())

    def skip(self, because: str | None = None, *, after_failure: bool = False) -> None:
        """Leave it out, saying because of which job."""
        move(self, S.SKIPPED, because=because, after_failure=after_failure, finished_at=now())

    def reopen(self) -> None:
        """Make a failed one pending again."""
        move(self, S.PENDING, finished_at=None)

    @plain
    def can_retry(self) -> bool:
        """Tell whether an attempt is left; without `max_attempts` there is none."""
        return self.max_attempts is not None and self.attempt_count < self.max_attempts
