"""Definition: the jobs of a run, as its worker needs them: those of a declared DAG, or what records said at its start.

Owns how a stored job and the declared one that does it are put together. What others change in the records later does
not concern a run; what it began with is in its plan.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.errors import DuplicateRegistration, Invalid, InvalidDag, NotRegistered, RunNotFound, UnknownJob
from eventic_core.graph import Dag, TriggerRule
from eventic_core.jobs.declared_dag import DeclaredDag, check_types, find
from eventic_core.jobs.entities import Job
from eventic_core.jobs.plan import Plan
from eventic_core.jobs.registry import find_job
from eventic_core.jobs.running import STORED_JOBS_QUEUE, planned, stored_queue_of
from eventic_core.jobs.stored import StoredDag, stored_dag

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from eventic_core.automation.retries import Retries
    from eventic_core.jobs.backfill import Backfill
    from eventic_core.jobs.declared_job import DeclaredJob
    from eventic_core.jobs.schedule import Schedule


_OF_FUNCTION = ("is_async", "parameters", "required", "result_type", "given", "_adapters")
"""What jobs know that is told from their functions: found out once for all the stored jobs that one function does."""


@dataclass(frozen=True, kw_only=True)
class StoredDefinition(DeclaredDag):
    """A stored DAG as a run has it: what the records say, and the declared jobs that do it.

    Attributes:
        said: To each job what its record said, as JSON data.
    """

    said: Mapping[str, Mapping[str, Any]]

    @property
    def queue_name(self) -> str:
        """The queue its jobs are done on, but those with limits; all stored DAGs share it."""
        return STORED_JOBS_QUEUE

    def own_queue_of(self, one: DeclaredJob[Any, Any]) -> str:
        """Name the queue that keeps a job's limits: that of the declared DAG, or of all stored DAGs."""
        found = _found_again(self.said[one.name])
        return stored_queue_of(found.job) if found.dag is None else found.dag.own_queue_of(found.job)

    def parameters_of(self, job: DeclaredJob[Any, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Give those of a run's parameters that a job takes, and for others what its record says."""
        return super().parameters_of(job, {**self.said[job.name]["parameters"], **given})

    def document(self) -> dict[str, Any]:
        """Give what a run keeps of it, as JSON data."""
        return {**super().document(), "jobs": list(self.said.values())}


def definition_of(run_id: UUID, dag: str) -> DeclaredDag:
    """Give the jobs of a run.

    Args:
        run_id: The run.
        dag: The name of its DAG.

    Raises:
        NotRegistered: This process has not declared the DAG, or a job of the stored one, or two of its name.
    """
    try:
        stored = bool(planned(run_id).jobs)
    except RunNotFound:
        stored = False
    return _definition_of_stored(run_id, dag) if stored else find(dag)


@functools.lru_cache(maxsize=64)
def _definition_of_stored(run_id: UUID, dag: str) -> StoredDefinition:
    plan, said = planned(run_id)
    return _made(dag, plan, said)


def dag_called(name: str, client_id: str | None = None, *, stored: bool = False) -> DeclaredDag:
    """Give the DAG of a name: the declared one, or else what is stored of a tenant; that at once if it is asked for.

    Raises:
        NotRegistered: There is none of the name, or what does a job of it is not declared in this process.
        UnknownJob: The stored one is asked for, and there is none.
        DuplicateRegistration, InvalidDag, Invalid: As `define`.
    """
    if stored:
        return define(stored_dag(name, client_id))
    try:
        return find(name)
    except NotRegistered:
        with contextlib.suppress(UnknownJob):
            return define(stored_dag(name, client_id))
        raise


def dag_of(schedule: Schedule | Backfill) -> DeclaredDag:
    """Give what a schedule, or a backfill of it, runs: as it is declared in this process, or as it is stored now.

    Raises:
        NotRegistered: This process has not declared it, or what does a job of it.
        RecordDeleted: The job is deleted.
        UnknownJob, DuplicateRegistration, InvalidDag, Invalid: As `dag_called`.
    """
    if schedule.job_id is not None:
        return define_job(Job.hydrate(schedule.job_id))
    if schedule.stored:
        return dag_called(schedule.dag, schedule.client_id, stored=True)
    return find(schedule.dag)  # and never what is stored under the name, which is another DAG


def define_job(job: Job) -> StoredDefinition:
    """Make a DAG of a job that is part of none; what it waits for takes no part. Raises as `define`."""
    if job.dag is not None:
        message = (
            f"Job {job.name!r} is part of DAG {job.dag!r} and does not run by itself: run that, with "
            f"stored_dag({job.dag!r}, ...).start(), or store the job without dag=."
        )
        raise InvalidDag(message)
    alone = Dag({job.name: ()})
    return define(StoredDag(name=job.name, client_id=job.client_id, jobs={job.name: job}, dag=alone, dependencies=()))


def define(stored: StoredDag) -> StoredDefinition:
    """Find the functions of a stored DAG's jobs, and check that all fits together.

    Raises:
        NotRegistered: This process has not declared one.
        DuplicateRegistration: It has declared two jobs of one name.
        InvalidDag: The jobs are part of no DAG, a result goes to a parameter that is not there, or does not fit it, or
            a job is mapped otherwise than it is declared.
        Invalid: A job's record has arguments that its function does not take, or another job gives.
    """
    if stored.name is None:
        message = "These jobs are part of no DAG, so there is none to run. Store them with dag='...'."
        raise InvalidDag(message)
    names = {job.id: job.name for job in stored.jobs.values()}
    taken: dict[str, dict[str, str | None]] = {name: {} for name in stored.jobs}
    for wait in stored.dependencies:
        taken[names[wait.job_id]][names[wait.depends_on_id]] = wait.argument
    found = {name: _found(stored.name, job.function or name) for name, job in stored.jobs.items()}
    for name, job in stored.jobs.items():
        _check_map(stored.name, job, found[name])
    said = {name: _said(stored.name, job, found[name], taken[name]) for name, job in stored.jobs.items()}
    upstream = {name: list(stored.dag.upstream(name)) for name in stored.jobs}
    rules = {name: job.rule for name, job in stored.jobs.items() if job.rule is not TriggerRule.ALL_SUCCESS}
    plan = Plan(upstream, rules, [name for name, one in found.items() if one.job.is_branch])
    made = _made(stored.name, plan, said)
    for one in made.jobs.values():
        check_types(stored.name, one, made.jobs, made.arguments[one.name])
    return made


class _Found(NamedTuple):
    """What does a stored job, and the declared DAG of the stored one's name, if it is part of that."""

    job: DeclaredJob[Any, Any]
    dag: DeclaredDag | None


def _found(dag: str, function: str) -> _Found:
    with contextlib.suppress(NotRegistered):
        declared = find(dag)
        if function in declared.jobs:
            return _Found(declared.jobs[function], declared)
    return _Found(find_job(function), None)


def _found_again(said: Mapping[str, Any]) -> _Found:
    """Find what was found when the run was started, in another process.

    Raises:
        NotRegistered: It is not there, or not the only one: another worker is to do it.
    """
    function, declared_in = said["function"], said["declared_in"]
    if declared_in is None:
        try:
            return _Found(find_job(function), None)
        except DuplicateRegistration as error:
            raise NotRegistered(error.message) from error
    dag = find(declared_in)
    if function not in dag.jobs:
        message = f"DAG {declared_in!r}, as it is declared in this process, has no job {function!r}."
        raise NotRegistered(message)
    return _Found(dag.jobs[function], dag)


def _check_map(dag: str, job: Job, found: _Found) -> None:
    """Refuse a map that is not the declared one, whose elements workers do as a run of the declared DAG's.

    Raises:
        InvalidDag: It is another, or not in the declared DAG of the name.
    """
    mapped = found.job.map
    if job.map_over is not None and job.map_over != mapped:
        what = "is not mapped" if mapped is None else f"is mapped over {mapped!r}"
        message = (
            f"DAG {dag!r}: job {job.name!r} is to be mapped over {job.map_over!r}, but its function {what}: declare it "
            "so with @job(map=...)."
        )
        raise InvalidDag(message)
    if mapped is not None and (found.dag is None or job.name != found.job.name):
        message = (
            f"DAG {dag!r}: job {job.name!r} is mapped, and so must be part of a DAG that is declared under this name, "
            f"as {found.job.name!r}. Declare one with dag({dag!r}, ...)."
        )
        raise InvalidDag(message)


def _said(dag: str, job: Job, found: _Found, taken: Mapping[str, str | None]) -> dict[str, Any]:
    """Give what a job's record says, as JSON data, with the arguments that take results and where its function is."""
    declared = found.job
    named = {argument: before for before, argument in taken.items() if argument is not None}
    _refuse_unknown(dag, job, declared, named, "a dependency names")
    _refuse_unknown(dag, job, declared, job.parameters, "its record has")
    same = {before: before for before in taken if before in declared.parameters and before not in named}
    arguments = {**same, **named}
    both = sorted(arguments.keys() & job.parameters.keys())
    if both:
        message = (
            f"DAG {dag!r}: parameter {both[0]!r} of job {job.name!r} takes the result of {arguments[both[0]]!r}, and "
            "its record has a value as well. Remove that."
        )
        raise Invalid(message)
    return {
        "name": job.name,
        "id": str(job.id),
        "function": job.function or job.name,
        "declared_in": None if found.dag is None else found.dag.name,
        "arguments": arguments,
        "retries": job.retries,
        "priority": job.priority,
        "timeout_seconds": job.timeout_seconds,
        "parameters": job.parameters,
    }


def _refuse_unknown(dag: str, job: Job, declared: DeclaredJob[Any, Any], given: Iterable[str], whose: str) -> None:
    unknown = sorted(set(given) - declared.parameters.keys())
    if unknown:
        message = (
            f"DAG {dag!r}: job {job.name!r} has no parameter {unknown[0]!r}, which {whose}; its function "
            f"{declared.name!r} takes: {', '.join(declared.parameters) or 'none'}."
        )
        raise InvalidDag(message)


def _made(dag: str, plan: Plan, said: Mapping[str, Mapping[str, Any]]) -> StoredDefinition:
    jobs = {name: _job(plan, said[name]) for name in plan.names}
    arguments = {name: said[name]["arguments"] for name in plan.names}
    return StoredDefinition(name=dag, jobs=jobs, arguments=arguments, plan=plan, said=said)


def _job(plan: Plan, said: Mapping[str, Any]) -> DeclaredJob[Any, Any]:
    """Make a job of what its record said and the declared one."""
    declared, name = _found_again(said).job, said["name"]
    made = replace(
        declared,
        name=name,
        rule=plan.rules.get(name, TriggerRule.ALL_SUCCESS),
        inputs=said["arguments"],
        depends_on=plan.dag.upstream(name),
        retry=_retry(declared.retry, said["retries"]),
        timeout_seconds=said["timeout_seconds"] or declared.timeout_seconds,
        priority=said["priority"],
        is_branch=name in plan.branches,
    )
    vars(made).update({name: getattr(declared, name) for name in _OF_FUNCTION})
    return made


def _retry(declared: Retries, retries: int) -> Retries:
    """Give the declared policy, with as many attempts as a record says; 0 retries is to say nothing.

    The delays are as declared, and so is which errors are tried again at all, where that is told by their class.
    """
    if not retries:
        return declared
    if isinstance(declared, Mapping):
        most = {kind: retries + 1 if policy.max_attempts > 1 else 1 for kind, policy in declared.items()}
        return {kind: replace(policy, max_attempts=most[kind]) for kind, policy in declared.items()}
    return replace(declared, max_attempts=retries + 1)
