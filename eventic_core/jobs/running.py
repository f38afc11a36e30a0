"""What jobs ask of the runtime: which work is theirs, on which queues, and the table of their runs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.errors import RunNotFound
from eventic_core.jobs.plan import Plan
from eventic_core.jobs.schedule_work import let_workers_decide
from eventic_core.records.port import Work
from eventic_core.records.query import transaction
from eventic_core.runtime import performing
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import Queue
from eventic_core.settings import slug
from eventic_core.store.dag_runs import DagRunTable
from eventic_core.store.handlers import call_payload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.declared_job import DeclaredJob
    from eventic_core.records.stamp import Origin
    from eventic_core.store.transaction import PostgresTransaction

DAG_RUN, JOBS = "eventic.dag_run", "eventic.jobs"
DAGS_QUEUE = "eventic_dags"
STORED_JOBS_QUEUE = "eventic_jobs"
"""Where jobs of stored DAGs are done, by any worker that has declared a job."""
_SHARING, _MOST = 4, 50
"""Ready jobs are shared out among so few groups, of so many jobs at most: one whose jobs last gives some away again."""


def let_workers_run(dag: DeclaredDag) -> None:
    """Have workers of this process run a DAG."""
    performing.define(DAG_RUN, _do_run)
    performing.define(JOBS, _do_group)
    let_workers_decide()
    for queue in _queues_of(dag):
        process().queue(queue)


def let_workers_do(job: DeclaredJob[Any, Any]) -> None:
    """Have workers of this process run stored DAGs, and do this job in them."""
    performing.define(DAG_RUN, _do_run)
    performing.define(JOBS, _do_group)
    process().queue(Queue(DAGS_QUEUE))
    process().queue(Queue(STORED_JOBS_QUEUE))
    let_workers_decide()
    if job.limits is not None and job.map is None:
        process().queue(job.limits.queue_called(stored_queue_of(job)))


def stored_queue_of(job: DeclaredJob[Any, Any]) -> str:
    """Name the queue that keeps a job's limits in stored DAGs: they hold for all these together."""
    return f"job_{slug(job.name).replace('-', '_')}"


def ensure_queues(dag: DeclaredDag) -> None:
    """Make the rows of a DAG's queues, for a writer that may be no worker."""
    for queue in _queues_of(dag):
        process().ensure_queue(queue.row(keyed=False))


def _queues_of(dag: DeclaredDag) -> list[Queue]:
    shared = Queue(dag.queue_name, concurrency=dag.concurrency)
    return [Queue(DAGS_QUEUE), shared, *dag.limited.values()]


def table() -> DagRunTable:
    """Give the table of runs on the connected database."""
    return DagRunTable(process().store)


def _do_run(assignment: Any) -> None:
    from eventic_core.jobs.run_workflow import DagWorkflow

    DagWorkflow(assignment).run()


def _do_group(assignment: Any) -> None:
    from eventic_core.jobs.group import JobGroup

    JobGroup(assignment).run()


class Planned(NamedTuple):
    """What a run began with.

    Attributes:
        plan: What comes after what.
        jobs: Of a stored DAG: to each job what its record said, as JSON data.
    """

    plan: Plan
    jobs: Mapping[str, Mapping[str, Any]]


def planned(run_id: UUID) -> Planned:
    """Give what a run began with; read once, for it never changes.

    Raises:
        RunNotFound: Nothing executes the run.
    """
    try:
        return _planned(run_id, None)
    except RunNotFound:
        tx: Any = transaction()
        if tx is None:
            raise
        return _planned.__wrapped__(run_id, tx)  # it was started in this transaction, which may yet be undone


@lru_cache(maxsize=64)
def _planned(run_id: UUID, tx: PostgresTransaction | None) -> Planned:
    document = table().plan(run_id, tx)
    if document is None:
        message = f"There is no run {run_id} of a DAG."
        raise RunNotFound(message)
    return Planned(Plan.of(document), {one["name"]: one for one in document.get("jobs", ())})


def plan_of(run_id: UUID) -> Plan:
    """Give the plan a run began with; raises as `planned`."""
    return planned(run_id).plan


def job_id_of(run_id: UUID, job: str) -> str | None:
    """Give the id of a job's record, if it is one of a stored DAG."""
    try:
        found = planned(run_id).jobs
    except RunNotFound:  # its row is about to be stored
        return None
    return found[job]["id"] if found else None


def groups_of(
    dag: DeclaredDag, plan: Plan, run_id: UUID, ready: Sequence[int], origin: Origin, *, busy: int = 0
) -> list[Work]:
    """Share out jobs that are ready among groups, those with a lower priority first; one with limits is by itself.

    Args:
        dag: What is run.
        plan: That of the run.
        run_id: The run.
        ready: The places of the jobs.
        origin: Who acts, and the workflow of the run's attempt.
        busy: How many other jobs are ready or run: the more there are, the more these share, for each group is a
            transaction that holds the run up.
    """
    alone = [place for place in ready if plan.names[place] in dag.limited] if dag.limited else []
    order = sorted(set(ready).difference(alone), key=lambda place: (dag.jobs[plan.names[place]].priority, place))
    shares = max(1, min(_SHARING - busy, len(order)))
    size = min(_MOST, max(1, -(-len(order) // shares)))
    chunks = [[place] for place in alone]
    chunks += [order[first : first + size] for first in range(0, len(order), size)]
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
    names = [plan_of(run_id).names[place] for place in places]
    priority = min(dag.jobs[job].priority for job in names)
    queue = dag.limited[names[0]].name if names[0] in dag.limited else dag.queue_name
    return Work(name, JOBS, queue, payload, delay_seconds=delay_seconds, parent=origin.workflow_id, priority=priority)


def run_work(run_id: UUID, workflow_id: str, dag: DeclaredDag, origin: Origin) -> Work:
    """Make the work that starts a run's jobs and ends it."""
    values = {
        "run": str(run_id),
        "dag": dag.name,
        "actor": origin.actor,
        "correlation_id": origin.correlation_id,
    }
    return Work(workflow_id, DAG_RUN, DAGS_QUEUE, call_payload(values))
