"""DAGs declared in code: what depends on what is told from arguments and `depends_on`.

Owns `dag` and the registry of DAGs. What a run does with them is in `run_workflow` and `group`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventic_core.errors import DuplicateRegistration, InvalidDag, NotRegistered
from eventic_core.graph import TriggerRule, to_mermaid, to_svg
from eventic_core.jobs.fitting import element_type, fits, type_name
from eventic_core.jobs.plan import Plan
from eventic_core.jobs.timetable import Overlap
from eventic_core.records.blocking import in_thread
from eventic_core.settings import slug

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.declared_job import DeclaredJob
    from eventic_core.jobs.schedule import Schedule
    from eventic_core.jobs.stored import StoredDag
    from eventic_core.runtime.queues import Queue

_dags: dict[str, DeclaredDag] = {}


@dataclass(frozen=True, kw_only=True)
class DeclaredDag:
    """Jobs that make a DAG, under a name.

    Attributes:
        jobs: By name, in the order they were given.
        arguments: For each job, its parameters that take a result, with the job that gives it.
        plan: What comes after what.
        concurrency: Groups of jobs that one worker does at a time.
    """

    name: str
    jobs: Mapping[str, DeclaredJob[Any, Any]]
    arguments: Mapping[str, Mapping[str, str]]
    plan: Plan
    concurrency: int = 16

    @property
    def queue_name(self) -> str:
        """The queue its jobs are done on, but those with limits."""
        return f"dag_{slug(self.name).replace('-', '_')}"

    @functools.cached_property
    def limited(self) -> Mapping[str, Queue]:
        """The jobs with limits, each with the queue that keeps them."""
        return {
            one.name: one.limits.queue_called(self.own_queue_of(one))
            for one in self.jobs.values()
            if one.limits and not one.map
        }

    def own_queue_of(self, one: DeclaredJob[Any, Any]) -> str:
        """Name the queue that keeps a job's limits, if none is chosen."""
        return f"{self.queue_name}__{slug(one.name).replace('-', '_')}"

    def start(self, *, correlation_id: str | None = None, client_id: str | None = None, **parameters: Any) -> DagRun:
        """Start a run: a workflow whose id is the run's; in a scope, when that commits.

        Args:
            correlation_id: Stamped on everything the run writes.
            client_id: The tenant whose run it is; `None` is none.
            parameters: For parameters of jobs that take no result.

        Raises:
            Invalid: A parameter is unknown, missing, or does not fit.
        """
        from eventic_core.jobs.starting import start

        return start(self, parameters, correlation_id=correlation_id, client_id=client_id)

    async def start_async(
        self, *, correlation_id: str | None = None, client_id: str | None = None, **parameters: Any
    ) -> DagRun:
        """Start a run without blocking the event loop; see `start`."""
        return await in_thread(self.start, correlation_id=correlation_id, client_id=client_id, **parameters)

    def stored(self, client_id: str | None = None) -> StoredDag:
        """Store its jobs and what they wait for as records of a tenant, or bring those up to date, and give them.

        Raises:
            Invalid: A job takes one result as two arguments.
            CycleFound: What others have added does not fit together with it any more.
        """
        from eventic_core.jobs.storing import store

        return store(self, client_id)

    def schedule(
        self,
        schedule: str | timedelta | float,
        *,
        name: str | None = None,
        zone: str | None = None,
        anchor: datetime | None = None,
        overlap: Overlap | str = Overlap.SKIP,
        catch_up: timedelta | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        parameters: Mapping[str, Any] | None = None,
        client_id: str | None = None,
    ) -> Schedule:
        """Have it run whenever it is due: store a schedule, or bring the one of that name up to date.

        Called again with the same values, as whenever an application starts, it changes nothing; a pause stays.

        Args:
            schedule: A cron or an interval; see `Timetable.of`.
            name: Its own among all schedules; default the DAG's name.
            zone: Whose clocks a cron goes by, an IANA name; default UTC.
            anchor: One of an interval's due times.
            overlap: What is done about a due time while an earlier run of the schedule goes on.
            catch_up: How old a due time may be that no worker came to, and still be run for; zero: none is made up
                for; `None`: the latest one alone is.
            starts_at: The first moment at which it may be due; what was due before it was made is a backfill's.
            ends_at: The first moment at which it is due no more.
            parameters: Of each run. A job's parameter `due_at` is given the due time, unless it is among them.
            client_id: The tenant of its runs.

        Raises:
            InvalidSchedule: It is no cron and no interval, never comes, the zone is unknown, or it ends too early.
            Invalid: A parameter is unknown, missing, or does not fit; or a moment has no time zone.
            InvalidRecord: There is no such overlap policy, or the catch-up window is negative.
            DuplicateRegistration: The name is that of another DAG's or tenant's schedule.
        """
        from eventic_core.jobs.schedule import scheduled

        return scheduled(
            self,
            schedule,
            name=name,
            zone=zone,
            anchor=anchor,
            overlap=overlap,
            catch_up=catch_up,
            starts_at=starts_at,
            ends_at=ends_at,
            parameters=parameters,
            client_id=client_id,
        )

    async def schedule_async(self, schedule: str | timedelta | float, **options: Any) -> Schedule:
        """Have it run whenever it is due, without blocking the event loop; takes and raises what `schedule` does."""
        return await in_thread(self.schedule, schedule, **options)

    def document(self) -> dict[str, Any]:
        """Give what a run keeps of it, as JSON data."""
        return self.plan.document()

    def mermaid(self) -> str:
        """Draw it as the text of a Mermaid flowchart."""
        return to_mermaid(self.plan.dag, branches=self.plan.branches)

    def svg(self) -> str:
        """Draw it as an SVG that stands by itself."""
        return to_svg(self.plan.dag, branches=self.plan.branches)

    def parameters_of(self, job: DeclaredJob[Any, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Give those of a run's parameters that a job takes."""
        results = self.arguments[job.name]
        return {name: given[name] for name in job.parameters if name in given and name not in results}


def dag(name: str, *jobs: DeclaredJob[Any, Any], concurrency: int = 16) -> DeclaredDag:
    """Make a DAG of jobs, and let workers of this process run it.

    Raises:
        CycleFound: A job would wait for itself; names the whole path.
        UnknownJob: One depends on a job that is not given.
        InvalidDag: Two jobs have one name, a parameter has no source, or a result does not fit a parameter.
        DuplicateRegistration: Another DAG has the name.
    """
    found: dict[str, DeclaredJob[Any, Any]] = {}
    for one in jobs:
        if one.name in found:
            message = f"DAG {name!r}: two jobs are called {one.name!r}. Give one of them another name."
            raise InvalidDag(message)
        found[one.name] = one
    arguments = {one.name: _arguments(one, found) for one in jobs}
    upstream = {one.name: list(dict.fromkeys([*arguments[one.name].values(), *one.depends_on])) for one in jobs}
    rules = {one.name: one.rule for one in jobs if one.rule is not TriggerRule.ALL_SUCCESS}
    plan = Plan(upstream, rules, [one.name for one in jobs if one.is_branch])
    for one in jobs:
        check_types(name, one, found, arguments[one.name])
    made = DeclaredDag(name=name, jobs=found, arguments=arguments, plan=plan, concurrency=concurrency)
    _register(made)
    return made


def _arguments(one: DeclaredJob[Any, Any], jobs: Mapping[str, DeclaredJob[Any, Any]]) -> dict[str, str]:
    unknown = sorted(one.inputs.keys() - one.parameters.keys())
    if unknown:
        message = f"Job {one.name!r} has no parameter {unknown[0]!r}, which its inputs name."
        raise InvalidDag(message)
    same = {name: name for name in one.parameters if name in jobs and name != one.name and name not in one.inputs}
    return {**same, **one.inputs}


def check_types(
    dag_name: str,
    one: DeclaredJob[Any, Any],
    jobs: Mapping[str, DeclaredJob[Any, Any]],
    arguments: Mapping[str, str],
) -> None:
    """Refuse results that do not fit the parameters they go to.

    Raises:
        InvalidDag: One does not.
    """
    for parameter, source in arguments.items():
        given, taken = jobs[source].result_type, one.parameters[parameter]
        if one.map == parameter:
            given = element_type(given)
        if not fits(given, taken):
            message = (
                f"DAG {dag_name!r}: {source} -> {one.name}: {source} gives {type_name(given)}, which does not fit "
                f"parameter {parameter!r} of {one.name}, {type_name(taken)}."
            )
            raise InvalidDag(message)


def _register(made: DeclaredDag) -> None:
    from eventic_core.jobs import mapping
    from eventic_core.jobs.running import let_workers_run

    known = _dags.get(made.name)
    if known is not None and not _is_again(known, made):
        message = f"Two DAGs are called {made.name!r}. Give one of them another name."
        raise DuplicateRegistration(message)
    for one in made.jobs.values():
        if one.map is not None:
            mapping.declare(made.name, one)
    _dags[made.name] = made
    let_workers_run(made)


def _is_again(known: DeclaredDag, made: DeclaredDag) -> bool:
    """Tell whether one definition replaces the other: a module that is imported again."""
    from eventic_core.runtime.functions import same_place

    both = known.jobs.keys() & made.jobs.keys()
    return bool(both) and all(same_place(known.jobs[name].function, made.jobs[name].function) for name in both)


def find(name: str) -> DeclaredDag:
    """Give the DAG declared under a name.

    Raises:
        NotRegistered: This process has not declared it.
    """
    found = _dags.get(name)
    if found is None:
        message = f"No DAG {name!r} is declared in this process: import its module in the worker."
        raise NotRegistered(message)
    return found
