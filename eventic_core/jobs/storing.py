"""Storing a declared DAG: its jobs and what they wait for as records, kept up to date beside those that people add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import Invalid
from eventic_core.jobs.entities import Job, JobDependency
from eventic_core.jobs.stored import stored_dag
from eventic_core.records.editing import edit_scope
from eventic_core.records.record_class import family
from eventic_core.store.job_graph import JobGraph, Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.stored import StoredDag

Ends = tuple[str, str]
"""Of a dependency: the job that waits, and the one it waits for."""


def store(dag: DeclaredDag, client_id: str | None) -> StoredDag:
    """Store a declared DAG as records of a tenant, or bring them up to date; see `DeclaredDag.stored`.

    Whoever changes the DAG at the same time waits, so that processes which start together store it once.
    """
    wanted = {(job, before): taken for job in dag.jobs for before, taken in _waits(dag, job).items()}
    with edit_scope(default_reason="stored", call="stored()", instead="asyncio.to_thread(dag.stored)"):
        graph = JobGraph(transaction_of_scope(), jobs=family(Job), dependencies=family(JobDependency))
        graph.lock([Place(client_id, dag.name)])
        known = {job.name: job for job in Job.where(client_id=client_id, dag=dag.name).all()}
        kept = _kept(known, wanted)
        ids = {name: job.id for name, job in _brought_up_to_date(dag, known).items()}
        ids |= _new_jobs(dag, client_id, known)
        new = [
            {"job_id": ids[name], "depends_on_id": ids[before], "argument": argument, "declared": True}
            for (name, before), argument in wanted.items()
            if (name, before) not in kept
        ]
        if new:
            JobDependency.create_many(new)
        return stored_dag(dag.name, client_id)


def _waits(dag: DeclaredDag, name: str) -> dict[str, str | None]:
    """Give the jobs that a job waits for, each with the parameter that takes its result.

    Raises:
        Invalid: Two do, and neither is called like the job: a record has room for one.
    """
    found: dict[str, str | None] = dict.fromkeys(dag.plan.dag.upstream(name))
    for parameter, before in dag.arguments[name].items():
        known = found[before]
        if known is None or known == before:
            found[before] = parameter
        elif parameter != before:  # one that is takes the result without being named
            message = (
                f"DAG {dag.name!r}: job {name!r} takes the result of {before!r} as {known!r} and as {parameter!r}; a "
                "stored dependency has one argument. Take it once. Nothing was stored."
            )
            raise Invalid(message)
    return found


def _values(dag: DeclaredDag, name: str) -> dict[str, Any]:
    """Give what the code says of a job; the record's other fields are for people to say."""
    job = dag.jobs[name]
    return {"rule": job.rule, "priority": job.priority, "map_over": job.map, "declared": True}


def _kept(jobs: Mapping[str, Job], wanted: Mapping[Ends, str | None]) -> set[Ends]:
    """Tell which dependencies are as the code says, by the names of their jobs; deletes those that are not any more.

    One whose argument is another now is made anew, since two may have changed theirs with each other.
    """
    names = {job.id: job.name for job in jobs.values()}
    kept: set[Ends] = set()
    for one in JobDependency.where(JobDependency.fields.job_id.in_(list(names))).all() if names else []:
        ends = names[one.job_id], names.get(one.depends_on_id, "")
        if ends in wanted and one.argument == wanted[ends]:
            kept.add(ends)
            _set(one, {"declared": True})
        elif ends in wanted or one.declared:
            one.delete(reason="declared otherwise")
    return kept


def _brought_up_to_date(dag: DeclaredDag, jobs: Mapping[str, Job]) -> dict[str, Job]:
    """Give the records of the DAG's jobs that there are; deletes those that the code has no more."""
    found = {name: job for name, job in jobs.items() if name in dag.jobs}
    for name, job in found.items():
        _set(job, _values(dag, name))
    for name, job in jobs.items():
        if job.declared and name not in found:
            job.delete(reason="no longer declared")
    return found


def _new_jobs(dag: DeclaredDag, client_id: str | None, known: Mapping[str, Job]) -> dict[str, UUID]:
    names = [name for name in dag.jobs if name not in known]
    place = {"client_id": client_id, "dag": dag.name}
    made = Job.create_many([{"name": name, **place, **_values(dag, name)} for name in names]) if names else []
    return dict(zip(names, made, strict=True))


def _set(record: Job | JobDependency, values: dict[str, Any]) -> None:
    changed = {name: value for name, value in values.items() if getattr(record, name) != value}
    if changed:
        record.update(**changed)
