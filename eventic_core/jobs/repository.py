"""JobRepository: jobs of one tenant at a time, in the open unit of work or by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.automation.lookup import page_of
from eventic_core.errors import RecordNotFound
from eventic_core.jobs.entities import Job

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.jobs.service import JobCreate

Found = list
"""What reading gives; `list` itself is the name of a method here."""


class JobRepository:
    """Stores and reads jobs. Who asks for no tenant gets the jobs without one; all are there by name only."""

    def create(self, job: JobCreate) -> Job:
        """Store a new job.

        Raises:
            InvalidRecord: The values do not fit.
            UnknownRule: There is no such trigger rule.
            InvalidSchedule: The schedule is none, or the zone.
            DuplicateKey: The tenant's DAG has a job of that name.
        """
        return Job(**job.model_dump(exclude_unset=True))

    def get(self, job_id: UUID | str, client_id: str | None = None) -> Job | None:
        """Read a job of a tenant; `None` if there is none, it is deleted, or another tenant's."""
        try:
            job = Job.hydrate(job_id)
        except RecordNotFound:
            return None
        return job if job.client_id == client_id else None

    def list(self, client_id: str | None = None, *, limit: int | None = 100, offset: int = 0) -> Found[Job]:
        """Read the jobs of a tenant, in the order they were made; of `None` those without a tenant.

        Raises:
            RepositoryError: A negative page.
        """
        return _page({"client_id": client_id}, limit, offset)

    def list_all_tenants(self, *, limit: int | None = 100, offset: int = 0) -> Found[Job]:
        """Read the jobs of all tenants, in the order they were made; raises as `list`."""
        return _page({}, limit, offset)


def _page(filters: dict[str, Any], limit: int | None, offset: int) -> Found[Job]:
    page_of([], limit=limit, offset=offset)  # refuses a negative one
    query = Job.where(**filters).order_by(Job.fields.id)
    rows = query if limit is None else query.limit(limit + offset)
    return rows.all()[offset:]
