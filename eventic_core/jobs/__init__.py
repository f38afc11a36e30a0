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
    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.declared import DeclaredDag, DeclaredJob, JobContext, dag, job
    from eventic_core.jobs.entities import DEFAULT_PRIORITY, Job, JobDependency
    from eventic_core.jobs.job_run import JobRun
    from eventic_core.jobs.repository import JobRepository
    from eventic_core.jobs.service import JobCreate, JobNotFound, JobRead, JobService
    from eventic_core.jobs.status import JobStatus
    from eventic_core.jobs.stored import StoredDag, stored_dag
    from eventic_core.runtime import Retry

_MODULES = {
    "automation.status": ("ExecutionStatus",),
    "automation.steering": ("Cancel", "Skip", "Snooze"),
    "graph": ("NodeState", "TriggerRule"),
    "jobs.dag_run": ("DagRun",),
    "jobs.declared": ("DeclaredDag", "DeclaredJob", "JobContext", "dag", "job"),
    "jobs.entities": ("DEFAULT_PRIORITY", "Job", "JobDependency"),
    "jobs.job_run": ("JobRun",),
    "jobs.repository": ("JobRepository",),
    "jobs.service": ("JobCreate", "JobNotFound", "JobRead", "JobService"),
    "jobs.status": ("JobStatus",),
    "jobs.stored": ("StoredDag", "stored_dag"),
    "runtime": ("Retry",),
}
_HOMES = {name: f"eventic_core.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEFAULT_PRIORITY",
    "Cancel",
    "DagRun",
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
    "Retry",
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
