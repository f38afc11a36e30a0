"""A job that started a run and ends with it: what it answers, and what comes of the run for the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from eventic_core.automation.item import Outcome
from eventic_core.automation.status import ExecutionStatus
from eventic_core.automation.steering import Cancel, Steering
from eventic_core.errors import ChildRunFailed

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.store.dag_runs import JobHead


@dataclass(frozen=True, slots=True)
class Awaited(Steering):
    """The job ends when this run has ended."""

    run_id: UUID


def outcome_of(run_id: UUID, head: JobHead | None) -> Outcome | None:
    """Tell what a job comes to whose run is this now; `None` while it goes on.

    Args:
        run_id: The run.
        head: Its record's current version, if it is stored.
    """
    if head is None:
        return Outcome(error=_failed(run_id, "it is not stored any more."))
    document: dict[str, Any] = from_json(head.data)
    status = ExecutionStatus(document["status"])
    if not status.is_finished:
        return None
    if status == ExecutionStatus.COMPLETED:
        return Outcome(result=f"{run_id}@{head.version}")
    if status == ExecutionStatus.FAILED:
        return Outcome(error=_failed(run_id, document.get("error_summary") or "it does not say why."))
    reason = document.get("cancellation_reason")
    return Outcome(result=Cancel(f"run {run_id} was cancelled" + (f": {reason}" if reason else "")))


def _failed(run_id: UUID, why: str) -> ChildRunFailed:
    return ChildRunFailed(f"Run {run_id}, which the job started, failed: {why}", run_id)
