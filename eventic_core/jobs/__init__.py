"""Jobs: what each does and waits for, in code or as records, run as a DAG; and when schedules are due.

The public names; each is loaded when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventic_core.automation.status import ExecutionStatus
    from eventic_core.automation.steering import Cancel, Skip, Snooze
    from eventic_core.graph import NodeState, TriggerRule
    from eventic_core.jobs.backfill import Backfill
    from eventic_core.jobs.context import JobContext
    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.declared_dag import DeclaredDag, dag
    from eventic_core.jobs.declared_job import DeclaredJob, job
    from eventic_core.jobs.entities import DEFAULT_PRIORITY, Job, JobDependency
    from eventic_core.jobs.job_run import JobRun
    from eventic_core.jobs.repository import JobRepository
    from eventic_core.jobs.run_repository import DagRunRepository
    from eventic_core.jobs.schedule import Schedule
    from eventic_core.jobs.service import JobCreate, JobNotFound, JobRead, JobService
    from eventic_core.jobs.status import JobStatus
    from eventic_core.jobs.stored import StoredDag, stored_dag
    from eventic_core.jobs.timetable import Overlap
    from eventic_core.runtime import Retry

_MODULES = {
    "automation.status": ("ExecutionStatus",),
    "automation.steering": ("Cancel", "Skip", "Snooze"),
    "graph": ("NodeState", "TriggerRule"),
    "jobs.backfill": ("Backfill",),
    "jobs.context": ("JobContext",),
    "jobs.dag_run": ("DagRun",),
    "jobs.declared_dag": ("DeclaredDag", "dag"),
    "jobs.declared_job": ("DeclaredJob", "job"),
    "jobs.entities": ("DEFAULT_PRIORITY", "Job", "JobDependency"),
    "jobs.job_run": ("JobRun",),
    "jobs.repository": ("JobRepository",),
    "jobs.run_repository": ("DagRunRepository",),
    "jobs.schedule": ("Schedule",),
    "jobs.service": ("JobCreate", "JobNotFound", "JobRead", "JobService"),
    "jobs.status": ("JobStatus",),
    "jobs.stored": ("StoredDag", "stored_dag"),
    "jobs.timetable": ("Overlap",),
    "runtime": ("Retry",),
}
_HOMES = {name: f"eventic_core.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEFAULT_PRIORITY",
    "Backfill",
    "Cancel",
    "DagRun",
    "DagRunRepository",
    "DeclaredDag",
    "DeclaredJob",
    "ExecutionStatus",
    "Job",
    "JobContext",
    "JobCreate",
    "JobDependency",
    "JobNotFound",
    "JobRead",
    "JobRepository",
    "JobRun",
    "JobService",
    "JobStatus",
    "NodeState",
    "Overlap",
    "Retry",
    "Schedule",
    "Skip",
    "Snooze",
    "StoredDag",
    "TriggerRule",
    "dag",
    "job",
    "stored_dag",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
