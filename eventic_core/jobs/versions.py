"""What came of an attempt at a job, as versions of its run: one for each move of its status."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import from_json

from eventic_core.automation.outcomes import ItemExecutionVersions
from eventic_core.automation.status import ExecutionStatus
from eventic_core.graph import NodeState
from eventic_core.jobs.awaited import Awaited
from eventic_core.jobs.job_run import JobRun
from eventic_core.jobs.running import job_id_of
from eventic_core.jobs.status import WAY_TO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from eventic_core.automation.item import Outcome
    from eventic_core.automation.retries import Retried
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.plan import Plan, Skipped
    from eventic_core.records.port import Append
    from eventic_core.records.stamp import Origin
    from eventic_core.store.dag_runs import JobHead

S = ExecutionStatus
_NEW = -1
_OUTCOME = ("result_payload", "error_message", "error_type", "because", "due_at", "steps", "child_run_id")


class JobRunVersions(ItemExecutionVersions):
    """The run of one job as its moves go on, from the version that is stored."""

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
            if (job_id := job_id_of(run_id, name)) is not None:
                document["job_id"] = job_id
        else:
            document = from_json(head.data)
        version = _NEW if head is None else head.version
        made = cls(job_run_id, document, None, item_id=job_run_id, version=version, origin=origin)
        made.place = place
        return made

    @classmethod
    def taken_over(cls, run_id: UUID, place: int, ended: Mapping[str, Any], *, origin: Origin) -> JobRunVersions:
        """Make the run of a job that ended in another run, as it was there; move by move, each a version."""
        job_run_id, status = job_run_id_of(run_id, ended["job"]), S(ended["status"])
        note = f"taken over from run {ended['dag_run_id']}"
        because = ended.get("because") or (ended.get("error_message") if status is not S.COMPLETED else None)
        its_own = {"dag_run_id": str(run_id), "number": place + 1, "status": S.PENDING.value}
        document = {**ended, **its_own, "because": f"{note}: {because}" if because else note}
        made = cls(job_run_id, document, None, item_id=job_run_id, version=_NEW, origin=origin)
        made.place = place
        made.pend()
        for step in WAY_TO.get(status, (status,)):
            made._move("fork", step)
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

    def mark(self, status: ExecutionStatus, reason: str, result: Any = None) -> None:
        """Somebody says how it has ended."""
        self.pend()
        moment = datetime.now(UTC)
        is_failed = status is S.FAILED
        document = {
            **self.document,
            "status": status.value,
            "result_payload": result,
            "because": reason,
            "error_message": reason if is_failed else None,
            "error_type": None,
            "after_failure": False,
            **self._anew(),
            "due_at": None,
            "started_at": self.document.get("started_at") or moment,
            "finished_at": moment,
        }
        # One that is being tried is skipped by `skip` only, whoever calls it.
        calls = "mark,skip" if (self.status, status) == (S.PROCESSING, S.SKIPPED) else "mark"
        self._change(reason, calls, document)

    def cancel(self, reason: str) -> None:
        """It is not wanted any more."""
        self.pend()
        self._move("cancel", S.CANCELLED, error_message=reason, due_at=None)


def reruns(
    dag: DeclaredDag,
    plan: Plan,
    run_id: UUID,
    places: Iterable[int],
    *,
    heads: Mapping[UUID, JobHead],
    origin: Origin,
) -> list[Append]:
    """Make the versions of jobs that are to be done again; `heads` are those of them that had run before."""
    appends: list[Append] = []
    for place in places:
        name = plan.names[place]
        head, most = heads.get(job_run_id_of(run_id, name)), dag.jobs[name].max_attempts
        versions = JobRunVersions.at(run_id, place, name, head, max_attempts=most, origin=origin)
        versions.rerun(most)
        appends += versions.versions
    return appends


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
