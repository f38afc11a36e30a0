"""The runs that jobs of a run started and wait for, as the records they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.automation.run import Run
from eventic_core.automation.status import ExecutionStatus
from eventic_core.graph import NodeState
from eventic_core.jobs.dag_run import DagRun
from eventic_core.jobs.job_run import JobRun
from eventic_core.jobs.plan import LETTERS

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.store.dag_runs import Held


def children(run_id: UUID, held: Held, *, of_job: str | None = None) -> list[Run | DagRun]:
    """Read the unfinished runs that jobs of a run, or one of them, wait for; it is held, so that they stay the same."""
    if LETTERS[NodeState.RUNNING] not in held.letters:
        return []
    waiting = JobRun.where(dag_run_id=run_id, status=str(ExecutionStatus.PROCESSING)).all()
    ids = [one.child_run_id for one in waiting if one.child_run_id is not None and of_job in (None, one.job)]
    found: list[Run | DagRun] = [
        *Run.where(Run.fields.id.in_(ids)).all(),
        *DagRun.where(DagRun.fields.id.in_(ids)).all(),
    ]
    return [one for one in found if not one.status.is_finished]
