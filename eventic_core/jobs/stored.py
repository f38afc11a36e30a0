"""Stored DAGs: the jobs and dependencies of one name and tenant, read as a graph of names. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventic_core.errors import UnknownJob
from eventic_core.graph import Dag
from eventic_core.jobs.entities import Job, JobDependency

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDag:
    """A DAG as it is stored.

    Attributes:
        name: Of the DAG; `None` for the jobs that are part of none.
        jobs: By name, in the order they were made.
        dag: What waits for what, by name.
        dependencies: In the order they were made.
    """

    name: str | None
    client_id: str | None
    jobs: Mapping[str, Job]
    dag: Dag
    dependencies: tuple[JobDependency, ...]


def stored_dag(dag: str | None, client_id: str | None = None) -> StoredDag:
    """Read a DAG, in two statements; in an open scope with what that has changed.

    What is deleted takes no part, nor do the dependencies of a deleted job.

    Args:
        dag: Its name; `None`: the tenant's jobs that are part of no DAG.
        client_id: The tenant; `None`: jobs without one.

    Raises:
        UnknownJob: No job is part of it.
    """
    jobs = Job.where(client_id=client_id, dag=dag).order_by(Job.fields.id).all()
    if not jobs:
        whose = f"client_id={client_id!r}, dag={dag!r}"
        message = f"No job is stored with {whose}. Check both, or store the jobs of the DAG with them."
        raise UnknownJob(message)
    names = {job.id: job.name for job in jobs}
    fields = JobDependency.fields
    found = JobDependency.where(fields.job_id.in_(list(names))).order_by(fields.id).all()
    dependencies = tuple(one for one in found if one.depends_on_id in names)
    upstream: dict[str, list[str]] = {name: [] for name in names.values()}
    for one in dependencies:
        upstream[names[one.job_id]].append(names[one.depends_on_id])
    by_name = {job.name: job for job in jobs}
    return StoredDag(name=dag, client_id=client_id, jobs=by_name, dag=Dag(upstream), dependencies=dependencies)
