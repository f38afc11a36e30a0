"""DagRun: one run of a DAG as a record, and what is asked of it while it goes on and after."""

from __future__ import annotations

import time
from datetime import datetime  # noqa: TC003 - Pydantic evaluates the annotations
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from eventic_core.automation.entity import DomainEntity, StatusTracking, move, now
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import ResultTimeout, RunNotFound
from eventic_core.graph import to_mermaid, to_svg
from eventic_core.jobs.job_run import JobRun
from eventic_core.jobs.plan import STATES
from eventic_core.jobs.status import JOB_STATES, look_of
from eventic_core.jobs.versions import job_run_id_of
from eventic_core.records import evented, plain
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import edit_scope
from eventic_core.records.query import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from eventic_core.graph import NodeState
    from eventic_core.jobs.plan import Plan
    from eventic_core.jobs.status import JobLook
    from eventic_core.store.dag_runs import DagRunRow

S = ExecutionStatus
_RETRIES = 5
"""Times a call is made again because a worker wrote the run meanwhile."""
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.005, 0.25


class DagRun(StatusTracking, DomainEntity, states=JOB_STATES, unique=[("schedule_id", "due_at")]):
    """A run of a DAG; its id is that of the workflow of its first attempt."""

    dag: str
    parameters: dict[str, Any] = {}  # noqa: RUF012 - Pydantic copies it
    correlation_id: str | None = None
    client_id: str | None = None
    """The tenant; `None` is none."""
    schedule_id: UUID | None = None
    """The schedule that started it."""
    due_at: datetime | None = None
    """The time of the schedule that it was started for."""
    forked_from: UUID | None = None
    """The run whose results it began with."""
    attempt: int = 1
    paused: bool = False
    error_summary: str | None = None
    cancellation_reason: str | None = None

    # -- moves

    def start(self) -> None:
        """Begin."""
        move(self, S.PROCESSING, started_at=now(), finished_at=None)

    def complete(self) -> None:
        """End well."""
        move(self, S.COMPLETED, finished_at=now())

    def fail(self, error_summary: str) -> None:
        """End badly."""
        move(self, S.FAILED, finished_at=now(), error_summary=error_summary)

    @evented(retry=_RETRIES)
    def pause(self) -> None:
        """Begin no more jobs until `resume`; those that are being done are finished.

        Raises:
            InvalidStateError: All its jobs have ended, it is paused, or nothing executes it.
        """
        from eventic_core.jobs import control

        control.pause(self)
        self.update(paused=True)

    @evented(retry=_RETRIES)
    def resume(self) -> None:
        """Go on after `pause`.

        Raises:
            InvalidStateError: It is not paused.
        """
        from eventic_core.jobs import control

        control.resume(self)
        self.update(paused=False)

    @evented(retry=_RETRIES)
    def cancel(self, reason: str) -> None:
        """End what has not ended: its jobs that wait or run are cancelled, and what they wrote is not stored.

        Raises:
            InvalidStateError: It has ended.
        """
        from eventic_core.jobs.control import cancel

        cancel(self.id, reason)  # first, for it holds the row that the run's workflow holds when it ends the run
        move(self, S.CANCELLED, finished_at=now(), cancellation_reason=reason, paused=False)

    @evented(retry=_RETRIES)
    def rerun(self, job: str | None = None) -> list[str]:
        """Do a job of an ended run again, and all that comes after it: a new attempt of the run, with its history kept.

        Args:
            job: The job. Without one, all that failed or were cancelled are done again, with what comes after them.

        Returns:
            The names of the jobs that are to be done again, in the order of the plan.

        Raises:
            InvalidStateError: The run goes on, or nothing executes it.
            UnknownJob: It has no such job.
            Invalid: Nothing has failed.
        """
        from eventic_core.jobs import control

        names = control.rerun(self, job)
        self._begin_again()
        return names

    @evented(retry=_RETRIES)
    def mark(self, job: str, *, reason: str, result: Any = None, status: str = S.COMPLETED) -> list[str]:
        """Say by hand how a job has ended, and have what comes after it decided anew.

        A job that is being done may be marked: what it comes to is not stored then; a run that it waits for goes on.
        While the run goes on, jobs after it that wait, or that a rule left out, follow; those that have begun stay as
        they are. A run that has ended begins a new attempt, in which all after it that did not complete are decided on
        anew.

        Args:
            job: The job.
            reason: Why; noted with the version of its run.
            result: What it gives those after it; of a branch, its choice.
            status: COMPLETED, FAILED or SKIPPED.

        Returns:
            The names of the jobs that may run now because of it, in the order of the plan.

        Raises:
            InvalidStateError: The job has completed, or has ended so already; or the run is about to end.
            UnknownJob: The run has no such job.
            Invalid: There is no reason, or the result does not fit what the job gives.
            InvalidBranch: The result is no choice of the branch.
        """
        from eventic_core.jobs.marking import mark

        marked = mark(self, job, reason=reason, result=result, status=status)
        if marked.is_again:
            self._begin_again()
        return marked.ready

    @plain
    def fork(self, job: str | Iterable[str] | None = None, **parameters: Any) -> DagRun:
        """Start a new run of the same DAG that does some jobs anew, with all after them, and takes over the others.

        The jobs that are taken over have the results they have here, say so in `because`, and are not done.

        Args:
            job: The job to begin with, or several. Without one, all that failed or were cancelled.
            parameters: Those that are to be others than this run's.

        Raises:
            InvalidStateError: A job that is to be taken over has not ended.
            UnknownJob: It has no such job.
            Invalid: Nothing has failed, the DAG has changed since, or a parameter is unknown, does not fit, or is only
                of jobs that are taken over.
        """
        from eventic_core.jobs.forking import fork

        return fork(self, [job] if isinstance(job, str) else job, parameters)

    def _begin_again(self) -> None:
        """Move to a new attempt."""
        with edit_scope(self, method="rerun"):  # the method that may, whoever calls it
            attempt = self.attempt + 1
            move(self, S.RETRYING, attempt=attempt, finished_at=None, error_summary=None, cancellation_reason=None)

    # -- questions

    @plain
    def wait(self, *, timeout_seconds: float | None = None) -> Self:
        """Wait until the run has ended, and make this object its last version.

        Raises:
            ResultTimeout: It took longer.
        """
        refuse_in_loop("wait()", "wait_async()")
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = _FIRST_POLL_SECONDS
        while True:
            self.refresh()
            if self.status.is_finished:
                return self
            if deadline is not None and time.monotonic() >= deadline:
                message = f"Run {self.id} of {self.dag!r} has not ended after {timeout_seconds} s: {self.status}."
                raise ResultTimeout(message)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    @plain
    async def wait_async(self, *, timeout_seconds: float | None = None) -> Self:
        """Wait without blocking the event loop; see `wait`."""
        return await in_thread(self.wait, timeout_seconds=timeout_seconds)

    @plain
    def states(self) -> dict[str, NodeState]:
        """Tell how far each job is, in the order of the plan."""
        return _states(self._plan(), self._row())

    @plain
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """List its jobs by layer: each is in the first one after all it waits for."""
        return self._plan().dag.layers()

    @plain
    def why(self, job: str) -> str:
        """Say why a job waits, was skipped or failed: `waiting for: b, c`; empty if there is nothing to say.

        Raises:
            UnknownJob: The run has no such job.
        """
        return self.look(job)[0].why

    @plain
    def look(self, *jobs: str) -> list[JobLook]:
        """See how far some jobs are, or all, in the order of the plan.

        Raises:
            UnknownJob: The run has no such job.
        """
        row, plan = self._row(), self._plan()
        plan.dag.check(*jobs)
        if jobs:
            ids = [job_run_id_of(self.id, job) for job in jobs]
            found = {one.job: one for one in JobRun.where(JobRun.fields.id.in_(ids)).all()}
        else:
            found = {one.job: one for one in self.job_runs()}
        places = plan.places(jobs) if jobs else range(len(plan))
        return [look_of(plan, row, place, found.get(plan.names[place])) for place in places]

    @plain
    def job_run(self, job: str) -> JobRun | None:
        """Read the run of a job; `None` before it has begun or was skipped."""
        found = JobRun.where(JobRun.fields.id == job_run_id_of(self.id, job)).all()
        return found[0] if found else None

    @plain
    def job_runs(self) -> list[JobRun]:
        """List the runs of its jobs that there are, in the order of the plan."""
        found: list[JobRun] = JobRun.where(dag_run_id=self.id).order_by(JobRun.fields.number).all()
        return found

    @plain
    def result(self, job: str) -> Any:
        """Give the result of a job, with the type its function says; `None` if it has none."""
        from eventic_core.jobs.definition import definition_of
        from eventic_core.jobs.mapping import result_in

        found = self.job_run(job)
        if found is None or found.status != S.COMPLETED:
            return None
        declared = definition_of(self.id, self.dag).jobs[job]
        return declared.result_of(result_in(declared, found.result_payload, found.child_run_id))

    @plain
    def mermaid(self) -> str:
        """Draw the run as the text of a Mermaid flowchart, with the state of each job."""
        plan = self._plan()
        return to_mermaid(plan.dag, states=_states(plan, self._row()), branches=plan.branches)

    @plain
    def svg(self) -> str:
        """Draw the run as an SVG that stands by itself, with the state of each job."""
        plan = self._plan()
        return to_svg(plan.dag, states=_states(plan, self._row()), branches=plan.branches)

    def _plan(self) -> Plan:
        from eventic_core.jobs.running import plan_of

        return plan_of(self.id)

    def _row(self) -> DagRunRow:
        from eventic_core.jobs.running import table

        tx: Any = transaction()
        row = table().read(self.id, tx)
        if row is None:
            message = f"Nothing executes run {self.id} of {self.dag!r}."
            raise RunNotFound(message)
        return row


def _states(plan: Plan, row: DagRunRow) -> dict[str, NodeState]:
    return {name: STATES[letter] for name, letter in zip(plan.names, row.letters, strict=True)}
