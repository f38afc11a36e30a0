"""What jobs ask of the runtime: which work is theirs, on which queues, and the table of their runs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from eventic_core.errors import RunNotFound
from eventic_core.jobs.plan import Plan
from eventic_core.records.port import Work
from eventic_core.runtime import performing
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import Queue
from eventic_core.store.dag_runs import DagRunTable
from eventic_core.store.handlers import call_payload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.jobs.declared import DeclaredDag, DeclaredJob
    from eventic_core.records.stamp import Origin

DAG_RUN, JOBS = "eventic.dag_run", "eventic.jobs"
DAGS_QUEUE = "eventic_dags"
_SHARING, _MOST = 4, 50
"""Ready jobs are shared out among so few groups, of so many jobs at most: one whose jobs last gives some away again."""


def let_workers_run(dag: DeclaredDag) -> None:
    """Have workers of this process run a DAG."""
    performing.define(DAG_RUN, _do_run)
    performing.define(JOBS, _do_group)
    process().queue(Queue(dag.queue_name, concurrency=dag.concurrency))
    process().queue(Queue(DAGS_QUEUE))


def ensure_queues(dag: DeclaredDag) -> None:
    """Make the rows of a DAG's queues, for a writer that may be no worker."""
    process().ensure_queue(Queue(DAGS_QUEUE).row(keyed=False))
    process().ensure_queue(Queue(dag.queue_name, concurrency=dag.concurrency).row(keyed=False))


def table() -> DagRunTable:
    """Give the table of runs on the connected database."""
    return DagRunTable(process().store)


def _do_run(assignment: Any) -> None:
    from eventic_core.jobs.run_workflow import DagWorkflow

    DagWorkflow(assignment).run()


def _do_group(assignment: Any) -> None:
    from eventic_core.jobs.group import JobGroup

    JobGroup(assignment).run()


@lru_cache(maxsize=64)
def plan_of(run_id: UUID) -> Plan:
    """Give the plan a run began with; read once, for it never changes.

    Raises:
        RunNotFound: Nothing executes the run.
    """
    document = table().plan(run_id)
    if document is None:
        message = f"There is no run {run_id} of a DAG."
        raise RunNotFound(message)
    return Plan.of(document)


def groups_of(
    dag: DeclaredDag, plan: Plan, run_id: UUID, ready: Sequence[int], origin: Origin, *, busy: int = 0
) -> list[Work]:
    """Share out jobs that are ready among groups, those with a lower priority first.

    Args:
        dag: What is run.
        plan: That of the run.
        run_id: The run.
        ready: The places of the jobs.
        origin: Who acts, and the workflow of the run's attempt.
        busy: How many other jobs are ready or run: the more there are, the more these share, for each group is a
            transaction that holds the run up.
    """
    order = sorted(ready, key=lambda place: (dag.jobs[plan.names[place]].priority, place))
    shares = max(1, min(_SHARING - busy, len(order)))
    size = min(_MOST, max(1, -(-len(order) // shares)))
    chunks = [order[first : first + size] for first in range(0, len(order), size)]
    return [group_of(dag, run_id, chunk, origin) for chunk in chunks]


def group_of(
    dag: DeclaredDag,
    run_id: UUID,
    places: Sequence[int],
    origin: Origin,
    *,
    again: str = "",
    delay_seconds: float = 0,
    ends: bool = False,
) -> Work:
    """Make a group of jobs.

    Args:
        dag: What is run.
        run_id: The run.
        places: The jobs.
        origin: Who acts, and the workflow of the run's attempt.
        again: Tells the groups of a job's later attempts from that of its first one.
        delay_seconds: When it is ready.
        ends: Whether it ends a job that waits for the run it started.
    """
    values = {
        "run": str(run_id),
        "workflow": origin.workflow_id,
        "dag": dag.name,
        "jobs": list(places),
        "ends": ends,
        "actor": origin.actor,
        "correlation_id": origin.correlation_id,
    }
    name = f"{origin.workflow_id}-j{places[0]}" + (f".{again}" if again else "")
    payload = call_payload(values)
    priority = min(job.priority for job in _jobs(dag, run_id, places))
    return Work(
        name, JOBS, dag.queue_name, payload, delay_seconds=delay_seconds, parent=origin.workflow_id, priority=priority
    )


def _jobs(dag: DeclaredDag, run_id: UUID, places: Sequence[int]) -> list[DeclaredJob[Any, Any]]:
    names = plan_of(run_id).names
    return [dag.jobs[names[place]] for place in places]


def run_work(run_id: UUID, workflow_id: str, dag: DeclaredDag, origin: Origin) -> Work:
    """Make the work that starts a run's jobs and ends it."""
    values = {
        "run": str(run_id),
        "dag": dag.name,
        "actor": origin.actor,
        "correlation_id": origin.correlation_id,
    }
    return Work(workflow_id, DAG_RUN, DAGS_QUEUE, call_payload(values))
