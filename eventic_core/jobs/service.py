"""JobService: what an application does with jobs, in values that know no database."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Pydantic evaluates the annotations
from typing import Any
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from eventic_core.automation.errors import EntityNotFoundError
from eventic_core.jobs.entities import DEFAULT_PRIORITY, Job
from eventic_core.jobs.repository import JobRepository
from eventic_core.records.state import invalid


class JobNotFound(EntityNotFoundError):
    """The tenant has no job of that id; also a KeyError.

    Attributes:
        job_id: The id.
    """

    code = "job_not_found"

    def __init__(self, job_id: object) -> None:
        self.job_id = job_id
        super().__init__("Job", job_id)
        self.message = f"No job {job_id} is stored, or it is deleted, or another tenant's. Check the id and client_id."
        self.args = (self.message,)


class JobCreate(BaseModel):
    """What a new job is given; `Job` says what fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str | None = None
    client_id: str | None = None
    dag: str | None = None
    schedule: str | None = None
    zone: str | None = None
    rule: str = "all_success"
    retries: int = 0
    priority: int = DEFAULT_PRIORITY
    timeout_seconds: float | None = None
    function: str | None = None
    map_over: str | None = None
    parameters: dict[str, Any] = {}


class JobRead(JobCreate):
    """What is told of a job."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: UUID
    version: int
    is_active: bool
    updated_at: datetime | None
    updated_by: str | None


class JobService:
    """Makes and finds jobs, of one tenant at a time.

    Args:
        repository: Where they are; default a `JobRepository`.
    """

    def __init__(self, repository: JobRepository | None = None) -> None:
        self._repository = repository or JobRepository()

    def create_job(
        self,
        name: str,
        client_id: str | None = None,
        schedule: str | None = None,
        retries: int = 0,
        priority: int = DEFAULT_PRIORITY,
        **more: Any,
    ) -> JobRead:
        """Store a new job.

        Args:
            name: Its own among the tenant's jobs in the DAG.
            client_id: The tenant; `None` is none.
            schedule: A cron or an interval.
            retries: How often it is tried again, 0 or more.
            priority: 0 or more; lower comes first.
            more: Other fields of `JobCreate`.

        Raises:
            InvalidRecord: The values do not fit; nothing was stored.
            UnknownRule: There is no such trigger rule.
            InvalidSchedule: The schedule is none.
            DuplicateKey: There is a job of that name.
        """
        given = {"name": name, "client_id": client_id, "schedule": schedule, "retries": retries, "priority": priority}
        try:
            job = JobCreate.model_validate({**given, **more})
        except ValidationError as error:
            raise invalid("Job", error, "These values do not fit") from error
        return _told(self._repository.create(job))

    def get_job(self, job_id: UUID | str, client_id: str | None = None) -> JobRead:
        """Read a job of a tenant.

        Raises:
            JobNotFound: The tenant has none of that id.
        """
        job = self._repository.get(job_id, client_id)
        if job is None:
            raise JobNotFound(job_id)
        return _told(job)

    def list_jobs(self, client_id: str | None = None, *, limit: int | None = 100, offset: int = 0) -> list[JobRead]:
        """Read the jobs of a tenant, in the order they were made; of `None` those without a tenant.

        Raises:
            RepositoryError: A negative page.
        """
        return [_told(job) for job in self._repository.list(client_id, limit=limit, offset=offset)]


def _told(job: Job) -> JobRead:
    return JobRead.model_validate(job)
