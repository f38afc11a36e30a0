"""DagRunRepository: runs of DAGs of one tenant at a time, in the open unit of work or by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.automation.lookup import page_of
from eventic_core.errors import RecordNotFound
from eventic_core.jobs.dag_run import DagRun

if TYPE_CHECKING:
    from uuid import UUID

Found = list
"""What reading gives; `list` itself is the name of a method here."""


class DagRunRepository:
    """Reads runs of DAGs. Who asks for no tenant gets the runs without one; all are there by name only."""

    def get(self, run_id: UUID | str, client_id: str | None = None) -> DagRun | None:
        """Read a run of a tenant; `None` if there is none, or it is another tenant's."""
        try:
            run = DagRun.hydrate(run_id)
        except RecordNotFound:
            return None
        return run if run.client_id == client_id else None

    def list(
        self, client_id: str | None = None, *, dag: str | None = None, limit: int | None = 100, offset: int = 0
    ) -> Found[DagRun]:
        """Read the runs of a tenant, the latest first; of `None` those without a tenant.

        Args:
            client_id: The tenant.
            dag: Only of the DAGs of this name, declared or stored.
            limit: How many at most; `None` all.
            offset: How many to pass over first.

        Raises:
            RepositoryError: A negative page.
        """
        return _page({"client_id": client_id}, dag, limit, offset)

    def list_all_tenants(self, *, dag: str | None = None, limit: int | None = 100, offset: int = 0) -> Found[DagRun]:
        """Read the runs of all tenants, the latest first; takes and raises what `list` does."""
        return _page({}, dag, limit, offset)


def _page(filters: dict[str, Any], dag: str | None, limit: int | None, offset: int) -> Found[DagRun]:
    page_of([], limit=limit, offset=offset)  # refuses a negative one
    if dag is not None:
        filters["dag"] = dag
    query = DagRun.where(**filters).order_by(DagRun.fields.id.desc())
    rows = query if limit is None else query.limit(limit + offset)
    return rows.all()[offset:]
