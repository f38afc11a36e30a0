"""Backfill: a schedule's runs for a range of due times, as a record that says how far it is.

Owns what is asked of it. What a worker does about it is `backfilling`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import AwareDatetime, Field

from eventic_core.automation.entity import DomainEntity, StatusTracking, move, now
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import InvalidBackfill, ResultTimeout
from eventic_core.jobs import schedule_work
from eventic_core.jobs.dag_run import DagRun
from eventic_core.jobs.status import JOB_STATES
from eventic_core.jobs.timetable import Timetable
from eventic_core.jobs.timetable import backfill as due_in
from eventic_core.records import evented, plain
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from eventic_core.jobs.schedule import Schedule

S = ExecutionStatus
_RETRIES = 5
_POLL_SECONDS = 0.1
BACKFILL_ID = "backfill_id"
"""The property of a run that says of which backfill it is."""


class DueTime(NamedTuple):
    """A due time of a backfill, and its run once there is one; `is_own`: started by this backfill."""

    due_at: datetime
    run: DagRun | None
    is_own: bool


class BackfillProgress(NamedTuple):
    """How far a backfill is: due times in all, left out since they have a run, started, and of these ended."""

    due: int
    skipped: int
    started: int
    finished: int
    failed: int


class Backfill(StatusTracking, DomainEntity, states=JOB_STATES):
    """Runs for the due times of a range; made by `Schedule.backfill`.

    It completes when all its runs have ended, however; it fails if one cannot be started.
    """

    schedule_id: UUID
    dag: str
    stored: bool = False
    job_id: UUID | None = None
    client_id: str | None = None
    schedule: str
    zone: str | None = None
    anchor: AwareDatetime | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    from_at: AwareDatetime
    """The first moment of the range."""
    until_at: AwareDatetime
    """The first moment after it."""
    at_a_time: int = Field(default=1, ge=1)
    due_count: int
    started_count: int = 0
    skipped_count: int = 0
    decided_until: AwareDatetime | None = None
    """The last due time that a run was started for, or that had one."""
    error_summary: str | None = None
    cancellation_reason: str | None = None

    # -- moves

    def start(self) -> None:
        """Begin."""
        move(self, S.PROCESSING, started_at=now())

    def complete(self) -> None:
        """End well."""
        move(self, S.COMPLETED, finished_at=now())

    def fail(self, error_summary: str) -> None:
        """End badly."""
        move(self, S.FAILED, finished_at=now(), error_summary=error_summary)

    @evented(retry=_RETRIES)
    def cancel(self, reason: str, *, runs: bool = False) -> None:
        """Start no more runs; those that go on are finished, or cancelled too.

        Args:
            reason: Why.
            runs: Whether its runs that go on are cancelled.

        Raises:
            InvalidStateError: It has ended.
        """
        move(self, S.CANCELLED, finished_at=now(), cancellation_reason=reason)
        for run in self.runs() if runs else ():
            if run.status.is_active:
                run.cancel(reason)

    # -- questions

    @property
    def timetable(self) -> Timetable:
        """By which it goes: that of the schedule when it was made."""
        return Timetable.of(self.schedule, zone=self.zone, anchor=self.anchor)

    @plain
    def runs(self) -> list[DagRun]:
        """List the runs it has started, in the order of their due times."""
        refuse_in_loop("runs()", "asyncio.to_thread(backfill.runs)")
        found: list[DagRun] = DagRun.where(**{BACKFILL_ID: str(self.id)}).order_by(DagRun.fields.due_at).all()
        return found

    @plain
    def progress(self) -> BackfillProgress:
        """Tell how far it is now, whichever version this object is."""
        refuse_in_loop("progress()", "asyncio.to_thread(backfill.progress)")
        newest, runs = type(self).hydrate(self.id), self.runs()
        finished = sum(run.status.is_finished for run in runs)
        failed = sum(run.status in (S.FAILED, S.CANCELLED) for run in runs)
        return BackfillProgress(newest.due_count, newest.skipped_count, len(runs), finished, failed)

    @plain
    def due_times(self) -> list[DueTime]:
        """List its due times, oldest first, each with its run, which another one may have started."""
        refuse_in_loop("due_times()", "asyncio.to_thread(backfill.due_times)")
        fields = DagRun.fields
        of_range = DagRun.where(fields.due_at >= self.from_at, fields.due_at < self.until_at)
        runs = {run.due_at: run for run in of_range.where(schedule_id=self.schedule_id).all()}
        due = due_in(self.timetable, self.from_at, self.until_at, limit=max(self.due_count, 1))
        return [DueTime(moment, run := runs.get(moment), run is not None and self._is_own(run)) for moment in due]

    def _is_own(self, run: DagRun) -> bool:
        return run.properties.get(BACKFILL_ID) == str(self.id)

    @plain
    def wait(self, *, timeout_seconds: float | None = None) -> Self:
        """Wait until it has ended, and make this object its last version.

        Raises:
            ResultTimeout: It took longer.
        """
        refuse_in_loop("wait()", "asyncio.to_thread(backfill.wait)")
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            self.refresh()
            if self.status.is_finished:
                return self
            if deadline is not None and time.monotonic() >= deadline:
                message = f"Backfill {self.id} of {self.dag!r} has not ended after {timeout_seconds} s: {self.status}."
                raise ResultTimeout(message)
            time.sleep(_POLL_SECONDS)


def backfill(schedule: Schedule, start: datetime, end: datetime, *, at_a_time: int, limit: int) -> Backfill:
    """Store a backfill and enqueue its work; see `Schedule.backfill`."""
    due = due_of(schedule, start, end, limit=limit)
    schedule_work.ensure_queue()
    with edit_scope(default_reason="backfill", call="backfill()", instead="asyncio.to_thread"):
        made = Backfill(
            schedule_id=schedule.id,
            dag=schedule.dag,
            stored=schedule.stored,
            job_id=schedule.job_id,
            client_id=schedule.client_id,
            schedule=schedule.schedule,
            zone=schedule.zone,
            anchor=schedule.anchor,
            parameters=schedule.parameters,
            from_at=start,
            until_at=end,
            at_a_time=at_a_time,
            due_count=len(due),
        )
        schedule_work.enqueue(f"backfill-{made.id}", schedule_work.BACKFILL, {"backfill": str(made.id)})
    return made


def due_of(schedule: Schedule, start: datetime, end: datetime, *, limit: int) -> list[datetime]:
    """List the due times that a backfill of a range has.

    Raises:
        InvalidBackfill: There is none, or more than the limit, or the range ends in the future.
    """
    moment = schedule_work.table().now()
    if end > moment:
        message = f"A backfill up to {end}, which is still to come: give an end up to now, {moment}."
        raise InvalidBackfill(message)
    due = list(due_in(schedule.timetable, start, end, limit=limit))
    if not due:
        message = f"Schedule {schedule.name!r}, {schedule.schedule!r}, is not due from {start} to {end}."
        raise InvalidBackfill(message)
    return due
