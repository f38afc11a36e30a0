"""How far a job's run is: which status follows which, the earlier library's words for them, and what people see."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.automation.status import MOVES, NAMED_MOVES, ExecutionStatus
from eventic_core.graph import NodeState
from eventic_core.jobs.plan import STATES
from eventic_core.records.states import StateMachine

if TYPE_CHECKING:
    from datetime import datetime

    from eventic_core.jobs.job_run import JobRun
    from eventic_core.jobs.plan import Plan
    from eventic_core.store.dag_runs import DagRunRow

_S = ExecutionStatus


_RERUN: dict[tuple[str, str], str] = {
    **{(status, _S.PENDING): "rerun" for status in (_S.COMPLETED, _S.SKIPPED, _S.CANCELLED)},
    **{(status, _S.RETRYING): "rerun" for status in (_S.COMPLETED, _S.CANCELLED)},
}
_MARK: dict[tuple[str, str], str] = {
    (before, after): "mark"
    for before in (_S.PENDING, _S.RETRYING, _S.FAILED, _S.CANCELLED, _S.SKIPPED)
    for after in (_S.COMPLETED, _S.FAILED, _S.SKIPPED)
    if before != after and after not in MOVES[before]
}
JOB_STATES = StateMachine("status", _S.PENDING, MOVES, {**NAMED_MOVES, **_RERUN, **_MARK})
"""The table of moves of executions, and those that only a rerun makes, of jobs to PENDING and of their run to RETRYING,
or only a person who says how a job has ended."""


class JobStatus(StrEnum):
    """The four statuses of the earlier library; each is equal to the `ExecutionStatus` it stands for."""

    PENDING = "PENDING"
    RUNNING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


WORDS: dict[str, ExecutionStatus] = {
    "pending": _S.PENDING,
    "started": _S.PROCESSING,
    "running": _S.PROCESSING,
    "completed": _S.COMPLETED,
    "failed": _S.FAILED,
}
"""What each word of the earlier library means."""
WAY_TO: dict[ExecutionStatus, tuple[ExecutionStatus, ...]] = {
    _S.PROCESSING: (_S.PROCESSING,),
    _S.COMPLETED: (_S.PROCESSING, _S.COMPLETED),
    _S.FAILED: (_S.PROCESSING, _S.FAILED),
}
"""How a new run comes to a status that it may be made with, from PENDING."""


def status_of(word: Any) -> Any:
    """Give the status that a word of the earlier library means, in capitals or not; anything else as it is."""
    return WORDS.get(word.lower(), word) if isinstance(word, str) else word


class JobLook(NamedTuple):
    """How far a job of a run is, for people.

    Attributes:
        state: Also RUNNING for one that is known to be tried.
        attempts: Those that have begun.
        why: Why it waits, was left out, failed or was marked; empty if there is nothing to say.
    """

    job: str
    state: NodeState
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    why: str


def look_of(plan: Plan, row: DagRunRow, place: int, found: JobRun | None) -> JobLook:
    """See how far a job is, of its run's letters and its own run, if there is one."""
    state = STATES[row.letters[place]]
    why = plan.why(row.letters, place, row.refused) if state is NodeState.WAITING else ""
    if found is None:
        return JobLook(plan.names[place], state, 0, None, None, why)
    if state is NodeState.RUNNING:
        why = f"waiting for run {found.child_run_id}"
    elif state is not NodeState.WAITING:
        why = found.because or (found.error_message if state is not NodeState.COMPLETED else None) or ""
    if state is NodeState.READY and found.status == _S.PROCESSING:
        state = NodeState.RUNNING
    return JobLook(plan.names[place], state, found.attempt_count, found.started_at, found.finished_at, why)
