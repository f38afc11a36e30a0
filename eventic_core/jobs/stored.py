"""Stored DAGs: the jobs and dependencies of one name and tenant, read as a graph of names and run as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from eventic_core.errors import UnknownJob
from eventic_core.graph import Dag, to_mermaid, to_svg
from eventic_core.jobs.entities import Job, JobDependency
from eventic_core.records.blocking import in_thread
from eventic_core.records.editing import current_scope
from eventic_core.records.filters import Group, Selection
from eventic_core.records.port import current_store
from eventic_core.records.record_class import family
from eventic_core.records.state import from_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.schedule import Schedule
    from eventic_core.jobs.timetable import Overlap
    from eventic_core.records.filters import Filter

R = TypeVar("R", Job, JobDependency)


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

    def schedule(
        self,
        schedule: str | timedelta | float,
        *,
        name: str | None = None,
        zone: str | None = None,
        anchor: datetime | None = None,
        overlap: Overlap | str = "skip",
        catch_up: timedelta | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Have what is stored under its name run whenever it is due; the tenant of the runs is its own.

        Each run is of the records as they are when it is started, so that a change of them holds from the next run on.
        Called again with the same values it changes nothing.

        Args:
            schedule: A cron or an interval; see `Timetable.of`.
            name: Its own among all schedules; default the DAG's name.
            zone: Whose clocks a cron goes by, an IANA name; default UTC.
            anchor: One of an interval's due times.
            overlap: What is done about a due time while an earlier run of the schedule goes on.
            catch_up: How old a due time may be that no worker came to, and still be run for.
            starts_at: The first moment at which it may be due.
            ends_at: The first moment at which it is due no more.
            parameters: Of each run, before what the records say. A job's parameter `due_at` is given the due time,
                unless it is among them or in the job's record.

        Raises:
            InvalidSchedule, Invalid, InvalidRecord: As `DeclaredDag.schedule`.
            DuplicateRegistration: The name is that of another schedule; or this process has declared two jobs of one
                name.
            NotRegistered, InvalidDag: As `start`.
        """
        from eventic_core.jobs.definition import define
        from eventic_core.jobs.schedule import scheduled

        return scheduled(
            define(self),
            schedule,
            name=name,
            zone=zone,
            anchor=anchor,
            overlap=overlap,
            catch_up=catch_up,
            starts_at=starts_at,
            ends_at=ends_at,
            parameters=parameters,
            client_id=self.client_id,
            stored=True,
        )

    async def schedule_async(self, schedule: str | timedelta | float, **options: Any) -> Schedule:
        """Have it run whenever it is due, without blocking the event loop; takes and raises what `schedule` does."""
        return await in_thread(self.schedule, schedule, **options)

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
    fields = JobDependency.fields
    found = JobDependency.where(fields.job_id.in_([job.id for job in jobs])).order_by(fields.id).all() if jobs else []
    return _made(dag, client_id, jobs, found)


def written_dag(dag: str, client_id: str | None) -> StoredDag:
    """Read a DAG without what the open scope is still to write: for checks that are made while it writes.

    Raises:
        UnknownJob: No job is part of it.
    """
    jobs = _written(Job, Job.fields.client_id == client_id, Job.fields.dag == dag)
    ids = [job.id for job in jobs]
    return _made(dag, client_id, jobs, _written(JobDependency, JobDependency.fields.job_id.in_(ids)) if ids else [])


def _written(cls: type[R], *filters: Filter) -> list[R]:
    scope = current_scope()
    transaction = None if scope is None else scope.read_transaction()
    rows = current_store().select(Selection(family(cls), Group("and", filters)), transaction)
    return [from_row(cls, row) for row in rows]


def _made(dag: str | None, client_id: str | None, jobs: Sequence[Job], found: Sequence[JobDependency]) -> StoredDag:
    if not jobs:
        whose = f"client_id={client_id!r}, dag={dag!r}"
        message = f"No job is stored with {whose}. Check both, or store the jobs of the DAG with them."
        raise UnknownJob(message)
    names: dict[UUID, str] = {job.id: job.name for job in jobs}
    dependencies = tuple(one for one in found if one.depends_on_id in names)
    upstream: dict[str, list[str]] = {name: [] for name in names.values()}
    for one in dependencies:
        upstream[names[one.job_id]].append(names[one.depends_on_id])
    by_name = {job.name: job for job in jobs}
    return StoredDag(name=dag, client_id=client_id, jobs=by_name, dag=Dag(upstream), dependencies=dependencies)
