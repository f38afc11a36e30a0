"""What people do to a run of a DAG while it goes on: pause, resume, cancel. Called in the scope of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import InvalidStateError
from eventic_core.graph import NodeState
from eventic_core.jobs.plan import LETTERS, UNFINISHED
from eventic_core.jobs.running import plan_of, table
from eventic_core.jobs.versions import JobRunVersions, job_run_id_of
from eventic_core.records.stamp import current_origin
from eventic_core.runtime.process import process

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.jobs.dag_run import DagRun
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
