"""What people do to a run of a DAG while it goes on: pause, resume, cancel, rerun. Called in the scope of the call."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import Invalid, InvalidStateError
from eventic_core.graph import NodeState
from eventic_core.jobs.children import children
from eventic_core.jobs.definition import definition_of
from eventic_core.jobs.plan import FAILURES, LETTERS, UNFINISHED
from eventic_core.jobs.running import plan_of, run_work, table
from eventic_core.jobs.versions import JobRunVersions, job_run_id_of, reruns, skips
from eventic_core.records.editing import current_scope
from eventic_core.records.stamp import current_origin
from eventic_core.runtime.process import process
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.plan import Plan, Skipped
    from eventic_core.records.stamp import Origin
    from eventic_core.store.dag_runs import Held
    from eventic_core.store.transaction import PostgresTransaction


def pause(run: DagRun) -> None:
    """Begin no more jobs of a run, nor of the runs its jobs wait for."""
    held = _change(run, "running", "paused", "pause")
    for child in children(run.id, held):
        with suppress(InvalidStateError):  # it is paused already, or ends just now
            child.pause()


def resume(run: DagRun) -> None:
    """Go on with a run that was paused."""
    held = _change(run, "paused", "running", "resume")
    table().release_groups(held.workflow_id, transaction_of_scope())
    for child in children(run.id, held):
        with suppress(InvalidStateError):
            child.resume()


def _change(run: DagRun, before: str, after: str, what: str) -> Held:
    runs, tx = table(), transaction_of_scope()
    held = runs.hold(run.id, tx) if runs.read(run.id, tx) is not None else None
    if held is None or held.state != before:
        raise InvalidStateError("DagRun", run.id, "nothing executes it" if held is None else held.state, what)
    runs.note(run.id, held, after, tx)
    return held


def rerun(run: DagRun, job: str | None) -> list[str]:
    """Begin a new attempt of a run with some of its jobs; gives their names."""
    runs, tx, plan = table(), transaction_of_scope(), plan_of(run.id)
    held = runs.hold(run.id, tx)
    if held.state != "ended":
        raise InvalidStateError("DagRun", run.id, held.state, "rerun")
    starts = first_again(run, plan, held, None if job is None else [job])
    places = plan.places({*starts, *plan.dag.descendants(*starts)})
    dag, origin = definition_of(run.id, run.dag), next_origin(run, None)
    store_reruns(run.id, dag, plan, places, origin=origin, tx=tx)
    found = plan.again(held.letters, places, held.refused)
    store_skips(run.id, dag, plan, found.skipped, origin=origin, tx=tx)
    begin_attempt(run, dag, held, origin, tx)
    return [plan.names[place] for place in places]


def first_again(run: DagRun, plan: Plan, held: Held, jobs: Iterable[str] | None) -> list[str]:
    """Give the jobs to begin again with; where none are named, all that failed or were cancelled.

    Raises:
        Invalid: There are none.
    """
    failed = (name for name, letter in zip(plan.names, held.letters, strict=True) if letter in FAILURES)
    starts = list(failed if jobs is None else jobs)
    if not starts:
        message = f"Run {run.id} of {run.dag!r}: no job has failed, so there is nothing to run again. Name a job."
        raise Invalid(message)
    return starts


def next_origin(run: DagRun, workflow_id: str | None) -> Origin:
    """Give who acts, for what an attempt of a run writes and does; without its workflow, the run's next attempt."""
    origin = current_origin()
    workflow_id = workflow_id or f"{run.id}:{run.attempt + 1}"
    return origin._replace(workflow_id=workflow_id, correlation_id=run.correlation_id or origin.correlation_id)


def begin_attempt(run: DagRun, dag: DeclaredDag, held: Held, origin: Origin, tx: PostgresTransaction) -> None:
    """Let an ended run go on as its letters say, in another workflow."""
    table().note(run.id, held, state_of(held, "running"), tx, workflow_id=origin.workflow_id)
    scope = current_scope()
    assert scope is not None
    assert origin.workflow_id is not None
    scope.enqueue(run_work(run.id, origin.workflow_id, dag, origin))


def state_of(held: Held, state: str) -> str:
    """Give the state of a run that goes on, or that it is done."""
    return "done" if frozenset(UNFINISHED).isdisjoint(held.letters) else state


def store_reruns(
    run_id: UUID, dag: DeclaredDag, plan: Plan, places: Sequence[int], *, origin: Origin, tx: PostgresTransaction
) -> None:
    """Store that jobs are to be done again."""
    heads = table().heads([job_run_id_of(run_id, plan.names[place]) for place in places], tx)
    if moves := reruns(dag, plan, run_id, places, heads=heads, origin=origin):
        process().store.append(moves, tx, told=False)


def store_skips(
    run_id: UUID, dag: DeclaredDag, plan: Plan, skipped: Sequence[Skipped], *, origin: Origin, tx: PostgresTransaction
) -> None:
    """Store that jobs are not run."""
    heads = table().heads([job_run_id_of(run_id, plan.names[one.place]) for one in skipped], tx)
    if moves := skips(dag, plan, run_id, skipped, heads=heads, origin=origin):
        process().store.append(moves, tx, told=False)


def cancel(run_id: UUID, reason: str) -> None:
    """End what a run has not finished: its jobs and its groups."""
    runs, tx = table(), transaction_of_scope()
    if runs.read(run_id, tx) is None:
        return  # nothing executes it
    held = runs.hold(run_id, tx)
    for child in children(run_id, held):  # before its groups are held, which the end of a child wakes
        child.cancel(reason)
    plan = plan_of(run_id)
    origin = current_origin()._replace(workflow_id=held.workflow_id)
    left = [place for place, letter in enumerate(held.letters) if letter in UNFINISHED]
    heads = runs.heads([job_run_id_of(run_id, plan.names[place]) for place in left], tx)
    moves = []
    for place in left:
        name = plan.names[place]
        head = heads.get(job_run_id_of(run_id, name))
        versions = JobRunVersions.at(run_id, place, name, head, max_attempts=1, origin=origin)
        versions.cancel(reason)
        moves += versions.versions
        held.letters[place] = LETTERS[NodeState.CANCELLED]
    if moves:
        process().store.append(moves, tx, told=False)
    runs.drop_groups(held.workflow_id, tx)
    runs.note(run_id, held, "ended", tx)
    WaitTable(process().store).ended(run_id, tx)
