"""Stored DAGs: the jobs and dependencies of one name and tenant, read as a graph of names and run as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventic_core.errors import UnknownJob
from eventic_core.graph import Dag, to_mermaid, to_svg
from eventic_core.jobs.entities import Job, JobDependency
from eventic_core.records.blocking import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventic_core.jobs.dag_run import DagRun


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

    def start(self, *, correlation_id: str | None = None, **parameters: Any) -> DagRun:
        """Start a run of its jobs as they were read; what is changed in the records later does not concern it.

        Each is done by the declared job that `function` names, or its own name: by that of the declared DAG of the same
        name, or else by the only one that is declared so. This process must have declared all of them, and so must the
        workers that do them. The record says the rule and the priority; `retries` and `timeout_seconds` hold where it
        says some, and what the declaration says where it does not. A dependency's result goes to the parameter that
        `argument` names, and to one that is called like the job which gives it.

        Args:
            correlation_id: Stamped on everything the run writes.
            parameters: For parameters that take no result; they hold for all jobs, before what a record says.

        Raises:
            NotRegistered: This process has not declared what does a job.
            DuplicateRegistration: It has declared two jobs of one name.
            InvalidDag: The jobs are part of no DAG, or a result does not fit the parameter it goes to.
            Invalid: A parameter, or an argument of a record, is unknown, missing, or does not fit.
        """
        from eventic_core.jobs.definition import define
        from eventic_core.jobs.starting import start

        return start(define(self), parameters, correlation_id=correlation_id, client_id=self.client_id)

    async def start_async(self, *, correlation_id: str | None = None, **parameters: Any) -> DagRun:
        """Start a run without blocking the event loop; see `start`."""
        return await in_thread(self.start, correlation_id=correlation_id, **parameters)

    def mermaid(self) -> str:
        """Draw it as the text of a Mermaid flowchart."""
        return to_mermaid(self.dag)

    def svg(self) -> str:
        """Draw it as an SVG that stands by itself."""
        return to_svg(self.dag)


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
