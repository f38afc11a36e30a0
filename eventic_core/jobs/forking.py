"""A new run that begins with results of another one: what that run did is taken over, the rest is done anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import Invalid, InvalidStateError
from eventic_core.jobs.control import first_again, next_origin, state_of, store_skips
from eventic_core.jobs.definition import definition_of
from eventic_core.jobs.plan import STATES, UNFINISHED
from eventic_core.jobs.running import plan_of, table
from eventic_core.jobs.starting import start
from eventic_core.jobs.versions import JobRunVersions, job_run_id_of
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope
from eventic_core.runtime.process import process

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from uuid import UUID

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.plan import Plan
    from eventic_core.records.port import Append
    from eventic_core.records.stamp import Origin
    from eventic_core.store.dag_runs import Held
    from eventic_core.store.transaction import PostgresTransaction


def fork(run: DagRun, jobs: Iterable[str] | None, parameters: Mapping[str, Any]) -> DagRun:
    """Start a run with the results of another one; see `DagRun.fork`."""
    refuse_in_loop("fork()", "asyncio.to_thread(run.fork)")
    dag, plan = definition_of(run.id, run.dag), plan_of(run.id)
    if difference := plan.difference(dag.plan):
        message = f"DAG {run.dag!r} is not what run {run.id} did: {difference}. Start a new run instead."
        raise Invalid(message)
    with edit_scope(default_reason="fork", call="fork()"):
        tx = transaction_of_scope()
        held = table().hold(run.id, tx)
        starts = first_again(run, plan, held, jobs)
        anew = {*starts, *plan.dag.descendants(*starts)}
        kept = [name for name in plan.names if name not in anew]
        _check(run, dag, plan, held, kept=kept, anew=anew, parameters=parameters)
        given = {**run.parameters, **parameters}
        made = start(dag, given, correlation_id=run.correlation_id, forked_from=run.id, client_id=run.client_id)
        origin = next_origin(made, str(made.id))
        if taken := _taken_over(run.id, made.id, kept, dag, origin=origin, tx=tx):
            process().store.append(taken, tx, told=False)
        _set_out(made.id, dag, plan, held, dag.plan.places(anew), origin=origin, tx=tx)
    return made


def _check(
    run: DagRun,
    dag: DeclaredDag,
    plan: Plan,
    held: Held,
    *,
    kept: Collection[str],
    anew: Collection[str],
    parameters: Mapping[str, Any],
) -> None:
    """Refuse to take over what has not ended, and to change a parameter only of what is taken over.

    Raises:
        InvalidStateError: A job has not ended.
        Invalid: A parameter would change nothing.
    """
    for name in kept:
        letter = held.letters[plan.place[name]]
        if letter in UNFINISHED:
            raise InvalidStateError(
                "Job", f"{name!r} of run {run.id}", str(STATES[letter]), "a fork that takes it over"
            )
    taken = {parameter for name in anew for parameter in dag.parameters_of(dag.jobs[name], parameters)}
    idle = {parameter: name for name in kept for parameter in dag.parameters_of(dag.jobs[name], parameters)}
    for parameter in sorted(idle.keys() - taken):
        message = (
            f"Parameter {parameter!r} would change nothing: the results of {idle[parameter]!r}, which takes it, are "
            f"taken over. Fork from that job too: {idle[parameter]!r}."
        )
        raise Invalid(message)


def _taken_over(
    source_id: UUID, made_id: UUID, kept: Collection[str], dag: DeclaredDag, *, origin: Origin, tx: PostgresTransaction
) -> list[Append]:
    """Make the runs of the jobs that the new run has not to do."""
    heads = table().heads([job_run_id_of(source_id, name) for name in kept], tx)
    appends: list[Append] = []
    for name in kept:
        ended = from_json(heads[job_run_id_of(source_id, name)].data)
        versions = JobRunVersions.taken_over(made_id, dag.plan.place[name], ended, origin=origin)
        appends += versions.versions
    return appends


def _set_out(
    made_id: UUID,
    dag: DeclaredDag,
    plan: Plan,
    source: Held,
    places: list[int],
    *,
    origin: Origin,
    tx: PostgresTransaction,
) -> None:
    """Have the new run's letters say what is taken over, and what is to be done."""
    runs, now = table(), dag.plan
    held = runs.hold(made_id, tx)
    held.letters[:] = [source.letters[plan.place[name]] for name in now.names]
    for place, branches in source.refused.items():
        held.refused[now.place[plan.names[place]]] = [now.place[plan.names[branch]] for branch in branches]
    found = now.again(held.letters, places, held.refused)
    store_skips(made_id, dag, now, found.skipped, origin=origin, tx=tx)
    runs.note(made_id, held, state_of(held, held.state), tx)
