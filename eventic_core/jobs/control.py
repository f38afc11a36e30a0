"""What people do to a run of a DAG while it goes on: pause, resume, cancel, rerun. Called in the scope of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import Invalid, InvalidStateError
from eventic_core.graph import NodeState
from eventic_core.jobs.declared import find
from eventic_core.jobs.plan import FAILURES, LETTERS, UNFINISHED
from eventic_core.jobs.running import plan_of, run_work, table
from eventic_core.jobs.versions import JobRunVersions, job_run_id_of, skips
from eventic_core.records.scope import current_scope
from eventic_core.records.stamp import current_origin
from eventic_core.runtime.process import process
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.records.port import Append
    from eventic_core.store.dag_runs import Held


def pause(run: DagRun) -> None:
    """Begin no more jobs of a run."""
    _change(run, "running", "paused", "pause")


def resume(run: DagRun) -> None:
    """Go on with a run that was paused."""
    held = _change(run, "paused", "running", "resume")
    table().release_groups(held.workflow_id, transaction_of_scope())


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
    failed = [name for name, letter in zip(plan.names, held.letters, strict=True) if letter in FAILURES]
    starts = failed if job is None else [job]
    if not starts:
        message = f"Run {run.id} of {run.dag!r}: no job has failed, so there is nothing to run again. Name a job."
        raise Invalid(message)
    places = sorted(plan.place[name] for name in {*starts, *plan.dag.descendants(*starts)})
    again = f"{run.id}:{run.attempt + 1}"
    origin = current_origin()._replace(workflow_id=again)
    dag = find(run.dag)
    heads = runs.heads([job_run_id_of(run.id, plan.names[place]) for place in places], tx)
    moves: list[Append] = []
    for place in places:
        name = plan.names[place]
        most = dag.jobs[name].max_attempts
        head = heads.get(job_run_id_of(run.id, name))
        versions = JobRunVersions.at(run.id, place, name, head, max_attempts=most, origin=origin)
        versions.rerun(most)
        moves += versions.versions
    process().store.append(moves, tx, told=False)
    found = plan.again(held.letters, places, held.refused)
    heads = runs.heads([job_run_id_of(run.id, plan.names[one.place]) for one in found.skipped], tx)
    if skipped := skips(dag, plan, run.id, found.skipped, heads=heads, origin=origin):
        process().store.append(skipped, tx, told=False)
    is_over = frozenset(UNFINISHED).isdisjoint(held.letters)
    runs.note(run.id, held, "done" if is_over else "running", tx, workflow_id=again)
    scope = current_scope()
    assert scope is not None
    scope.enqueue(run_work(run.id, again, dag, origin))
    return [plan.names[place] for place in places]


def cancel(run_id: UUID, reason: str) -> None:
    """End what a run has not finished: its jobs and its groups."""
    runs, tx = table(), transaction_of_scope()
    if runs.read(run_id, tx) is None:
        return  # nothing executes it
    held = runs.hold(run_id, tx)
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
