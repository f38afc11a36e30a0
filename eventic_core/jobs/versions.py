"""What came of an attempt at a job, as versions of its run: one for each move of its status."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import from_json

from eventic_core.automation.outcomes import ItemExecutionVersions
from eventic_core.automation.status import ExecutionStatus
from eventic_core.graph import NodeState
from eventic_core.jobs.awaited import Awaited
from eventic_core.jobs.job_run import JobRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventic_core.automation.item import Outcome
    from eventic_core.automation.retries import Retried
    from eventic_core.jobs.declared import DeclaredDag
    from eventic_core.jobs.plan import Plan, Skipped
    from eventic_core.records.port import Append
    from eventic_core.records.stamp import Origin
    from eventic_core.store.dag_runs import JobHead

S = ExecutionStatus
_NEW = -1
_OUTCOME = ("result_payload", "error_message", "error_type", "because", "due_at", "steps", "child_run_id")


class JobRunVersions(ItemExecutionVersions):
    """The run of one job as its moves go on; `versions` are those that are not stored yet."""

    stored_as = JobRun.__eventic__
    __slots__ = ("place",)
    place: int

    @classmethod
    def at(
        cls, run_id: UUID, place: int, name: str, head: JobHead | None, *, max_attempts: int, origin: Origin
    ) -> JobRunVersions:
        """Go on with a job's run, or begin one where there is none yet."""
        job_run_id = job_run_id_of(run_id, name)
        if head is None:
            document: dict[str, Any] = {
                "dag_run_id": str(run_id),
                "job": name,
                "number": place + 1,
                "status": S.PENDING.value,
                "attempt_count": 0,
                "max_attempts": max_attempts,
                "due_at": None,
                "properties": {},
            }
        else:
            document = from_json(head.data)
        version = _NEW if head is None else head.version
        made = cls(job_run_id, document, None, item_id=job_run_id, version=version, origin=origin)
        made.place = place
        return made

    @property
    def child_run_id(self) -> UUID | None:
        """The run it waits for; `None` if it waits for none."""
        child = self.document.get("child_run_id")
        return UUID(child) if child and self.status == S.PROCESSING else None

    def end(self, outcome: Outcome, automation: Retried) -> None:
        """Note what came of an attempt; one that started a run goes on until that has ended."""
        if outcome.error is None and isinstance(outcome.result, Awaited):
            self._move("wait", S.PROCESSING, child_run_id=str(outcome.result.run_id), **self._steps(outcome.steps))
        else:
            super().end(outcome, automation)

    def _anew(self) -> dict[str, Any]:
        return {"child_run_id": None} if self.document.get("child_run_id") else {}

    def skip(self, because: str, *, after_failure: bool) -> None:
        """It is not run."""
        self.pend()
        self._move("skip", S.SKIPPED, because=because, after_failure=after_failure)

    def rerun(self, max_attempts: int) -> None:
        """It is to be done again, with all its attempts anew."""
        outcome = dict.fromkeys(_OUTCOME)
        times = {"started_at": None, "finished_at": None}
        most = self.attempts + max_attempts
        self._move("rerun", S.PENDING, **outcome, **times, after_failure=False, max_attempts=most)

    def cancel(self, reason: str) -> None:
        """It is not wanted any more."""
        self.pend()
        self._move("cancel", S.CANCELLED, error_message=reason, due_at=None)


def skips(
    dag: DeclaredDag,
    plan: Plan,
    run_id: UUID,
    skipped: Sequence[Skipped],
    *,
    heads: Mapping[UUID, JobHead],
    origin: Origin,
) -> list[Append]:
    """Make the versions of jobs that are not run; `heads` are those of them that had run before."""
    appends: list[Append] = []
    for one in skipped:
        name = plan.names[one.place]
        head, most = heads.get(job_run_id_of(run_id, name)), dag.jobs[name].max_attempts
        versions = JobRunVersions.at(run_id, one.place, name, head, max_attempts=most, origin=origin)
        versions.skip(one.because, after_failure=one.state is NodeState.UPSTREAM_FAILED)
        appends += versions.versions
    return appends


def job_run_id_of(run_id: UUID | str, job: str) -> UUID:
    """Make the id of a job's run in a run of its DAG: the same for the same pair, so that there is one.

    A version 7 UUID (RFC 9562, 5.7) with the moment of the DAG's run.
    """
    run = str(run_id)
    digest = hashlib.sha256(f"{run}:{job}".encode()).hexdigest()
    variant = f"{int(digest[15], 16) & 3 | 8:x}"
    return UUID(run.replace("-", "")[:12] + "7" + digest[12:15] + variant + digest[16:31])
