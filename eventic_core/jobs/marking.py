"""A person says how a job of a run has ended, and what comes after it is decided anew. Called in the scope of the call.

Who holds the run's row first is right. A worker that is at the job either has stored what it came to, and the mark is
refused since the job has completed; or finds the job ended, and what it came to is dropped with the records it wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_jsonable_python

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import Invalid, InvalidStateError, NotSerialisable
from eventic_core.graph import NodeState
from eventic_core.jobs.children import children
from eventic_core.jobs.control import begin_attempt, next_origin, state_of, store_reruns, store_skips
from eventic_core.jobs.definition import definition_of
from eventic_core.jobs.fitting import type_name
from eventic_core.jobs.plan import FAILURES, LETTERS, STATES
from eventic_core.jobs.references import referring
from eventic_core.jobs.running import groups_of, plan_of, table
from eventic_core.jobs.versions import JobRunVersions, job_run_id_of
from eventic_core.records.editing import current_scope
from eventic_core.runtime.process import process

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.declared_job import DeclaredJob
    from eventic_core.jobs.plan import Next, Plan
    from eventic_core.records.stamp import Origin
    from eventic_core.store.dag_runs import Held
    from eventic_core.store.transaction import PostgresTransaction

S = ExecutionStatus
_ENDS = {S.COMPLETED: NodeState.COMPLETED, S.FAILED: NodeState.FAILED, S.SKIPPED: NodeState.SKIPPED}
_SKIPPED = LETTERS[NodeState.SKIPPED]


class Marked(NamedTuple):
    """What follows from a mark.

    Attributes:
        ready: The names of the jobs that may run now, in the order of the plan.
        is_again: Whether they do in a new attempt of the run.
    """

    ready: list[str]
    is_again: bool


def mark(run: DagRun, job: str, *, reason: str, result: Any, status: str) -> Marked:
    """Say how a job has ended; see `DagRun.mark`."""
    dag, plan = definition_of(run.id, run.dag), plan_of(run.id)
    plan.dag.check(job)
    state, value = _checked(dag.jobs[job], reason, result, status)
    place = plan.place[job]
    is_choice = job in plan.branches and state is NodeState.COMPLETED
    not_chosen = plan.refused_by(place, value) if is_choice else []
    runs, tx = table(), transaction_of_scope()
    held = runs.hold(run.id, tx)
    _refuse(run, job, STATES[held.letters[place]], held, state)
    for child in children(run.id, held, of_job=job):
        child.cancel(reason)
    is_again = held.state == "ended"
    origin = next_origin(run, None if is_again else held.workflow_id)
    cleared = _cleared(run.id, plan, job, held, tx)
    head = runs.heads([job_run_id_of(run.id, job)], tx).get(job_run_id_of(run.id, job))
    most = dag.jobs[job].max_attempts
    versions = JobRunVersions.at(run.id, place, job, head, max_attempts=most, origin=origin)
    versions.mark(S(status), reason, value)
    process().store.append(versions.versions, tx, told=False)
    store_reruns(run.id, dag, plan, cleared, origin=origin, tx=tx)
    for other in not_chosen:
        held.refused.setdefault(other, []).append(place)
    found = plan.marked(held.letters, place, state, cleared, held.refused)
    store_skips(run.id, dag, plan, found.skipped, origin=origin, tx=tx)
    if is_again:
        begin_attempt(run, dag, held, origin, tx)
    else:
        _go_on(run.id, dag, plan, held, found, origin=origin, tx=tx)
    return Marked([plan.names[other] for other in found.ready], is_again)


def _checked(job: DeclaredJob[Any, Any], reason: str, result: Any, status: str) -> tuple[NodeState, Any]:
    """Give the job's new state, and its result as JSON data.

    Raises:
        Invalid: There is no reason, no such end, or the result is none that the job gives.
        NotSerialisable: JSON cannot hold the result.
    """
    if not reason.strip():
        message = f"mark({job.name!r}) needs a reason: say why the job counts as {status}."
        raise Invalid(message)
    if status not in _ENDS:
        message = f"mark({job.name!r}, status={status!r}): a job is marked {', '.join(_ENDS)}."
        raise Invalid(message)
    state = _ENDS[S(status)]
    if state is not NodeState.COMPLETED:
        if result is not None:
            message = f"mark({job.name!r}): a job that is marked {status} gives no result; leave it out."
            raise Invalid(message)
        return state, None
    try:
        value = to_jsonable_python(referring(result), inf_nan_mode="constants")
    except (ValueError, TypeError, RecursionError) as error:
        message = f"mark({job.name!r}): JSON cannot hold the result {result!r:.200}: {error}"
        raise NotSerialisable(message) from error
    try:
        job.result_of(value)
    except ValidationError as error:
        message = f"mark({job.name!r}): the result does not fit {type_name(job.result_type)}: {error}"
        raise Invalid(message) from error
    return state, value


def _refuse(run: DagRun, job: str, was: NodeState, held: Held, state: NodeState) -> None:
    """Refuse what has happened already, and what the run's end may come before.

    Raises:
        InvalidStateError: The job has completed or ended so already, or the run is about to end.
    """
    if held.state == "done":
        raise InvalidStateError("DagRun", run.id, "about to end", f"a mark of {job!r} before it has ended")
    if was in (NodeState.COMPLETED, state):
        raise InvalidStateError("Job", f"{job!r} of run {run.id}", str(was), f"being marked {state}")


def _cleared(run_id: UUID, plan: Plan, job: str, held: Held, tx: PostgresTransaction) -> list[int]:
    """List the places of the jobs after one that are decided on anew.

    In a run that has ended all that did not complete. In one that goes on only those that were left out by a rule: what
    has begun may have a group, whose id another one in the same attempt would have again.
    """
    after = plan.places(plan.dag.descendants(job))
    if held.state == "ended":
        return [place for place in after if held.letters[place] in (*FAILURES, _SKIPPED)]
    ids = {place: job_run_id_of(run_id, plan.names[place]) for place in after if held.letters[place] == _SKIPPED}
    heads = table().heads(list(ids.values()), tx)
    begun = {place for place, one in ids.items() if from_json(heads[one].data).get("started_at") is not None}
    left_out = (LETTERS[NodeState.UPSTREAM_FAILED], _SKIPPED)
    return [place for place in after if held.letters[place] in left_out and place not in begun]


def _go_on(
    run_id: UUID, dag: DeclaredDag, plan: Plan, held: Held, found: Next, *, origin: Origin, tx: PostgresTransaction
) -> None:
    """Store how far a run is that goes on, and have done what is ready."""
    runs, scope = table(), current_scope()
    assert scope is not None
    runs.note(run_id, held, state_of(held, held.state), tx)
    record = from_json(runs.heads([run_id], tx)[run_id].data)
    if record["status"] != S.PROCESSING:
        return  # its workflow has not begun: it will begin all that is ready by then
    busy = held.letters.count(LETTERS[NodeState.READY]) - len(found.ready)
    for work in groups_of(dag, plan, run_id, found.ready, origin, busy=busy):
        scope.enqueue(work)
