"""One look at a schedule: which due times have come, what is done about each, and when to look again.

It is the schedule's work on a worker, one piece for each version of the schedule: that of an earlier version finds a
later one and ends. What it decides by is the database's clock, never the worker's.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic_core import to_json

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import Conflict, DuplicateRegistration, Invalid, NotRegistered, RecordDeleted, StoreUnavailable
from eventic_core.jobs.dag_run import DagRun
from eventic_core.jobs.definition import dag_of
from eventic_core.jobs.entities import Job
from eventic_core.jobs.job_schedule import fired_since, schedule_of
from eventic_core.jobs.schedule import Schedule
from eventic_core.jobs.schedule_work import decide_and_sleep, taken
from eventic_core.jobs.timetable import Decision, Overlap, decide, firings
from eventic_core.records.port import OwnershipLost, StaleWrite
from eventic_core.records.stamp import acting
from eventic_core.runtime.finishing import Interrupted
from eventic_core.store.schedules import ScheduleTable
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from datetime import datetime

    from eventic_core.jobs.backfill import Backfill
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.schedules import ScheduleProgress
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")
_LOOK_AGAIN = timedelta(days=1)
"""A schedule is looked at this often at least, should clocks be set meanwhile."""
NOT_ITS_FAULT = (NotRegistered, Conflict, StaleWrite, StoreUnavailable, OwnershipLost, Interrupted)
"""Errors of a start that another attempt, or another worker, may not have."""


class Firing:
    """One claim of a schedule's work."""

    def __init__(self, assignment: Assignment) -> None:
        values = assignment.values
        self._assignment = assignment
        self._job_id = UUID(values["job"]) if "job" in values else None
        self._record_id = self._job_id or UUID(values["schedule"])
        self._generation: int = values["generation"]
        self._table = ScheduleTable(assignment.store)
        self._waits = WaitTable(assignment.store)

    def run(self) -> None:
        """Decide what is due; the work sleeps until something may be due again, or is complete, when this returns.

        Raises:
            OwnershipLost: Somebody else took it over.
            NotRegistered: A run is to be started of a DAG that this process has not declared.
        """
        decide_and_sleep(self._assignment, self._decide)

    def _decide(self) -> datetime | None:
        tx = transaction_of_scope()
        if not self._table.hold_version(self._record_id, self._generation, tx):
            return None  # the version that came after, or before, has work of its own
        schedule, since, changed_at = self._found()
        if schedule.paused:
            return None
        by = _text_of(schedule)
        progress, now = self._table.hold(schedule.id, tx, timetable=by, since=since)
        if progress.timetable != by:  # what was due by another timetable is no matter of this one
            progress = progress._replace(timetable=by, decided_until=changed_at)
        if self._job_id is not None:  # nor what was due while the job had none, was paused or deleted
            progress = progress._replace(decided_until=max(progress.decided_until, since))
        with acting(reason=f"schedule {schedule.name}"):
            decided = _Decided(schedule, progress, self._table, tx)
            decided.decide(now)
        self._table.note(schedule.id, decided.progress, tx)
        return self._next_look(schedule, decided, now, tx)

    def _found(self) -> tuple[Schedule, datetime, datetime]:
        """Give the schedule, the moment before which nothing was due by it, and that of its last change."""
        if self._job_id is not None:
            job = Job.hydrate(self._job_id)
            since = fired_since(job)
            return schedule_of(job), since, since
        schedule = Schedule.hydrate(self._record_id)
        assert schedule.created_at is not None
        return schedule, schedule.created_at, schedule.stamp.recorded_at

    def _next_look(
        self, schedule: Schedule, decided: _Decided, now: datetime, tx: PostgresTransaction
    ) -> datetime | None:
        is_waiting = decided.progress.waiting_due_at is not None
        if is_waiting:  # none of these runs can end before this commits
            self._waits.add(self._assignment.run_id, decided.running, tx)
        due = schedule.timetable.next_after(decided.progress.decided_until)
        if schedule.ends_at is not None and due >= schedule.ends_at:
            return now + _LOOK_AGAIN if is_waiting else None
        return min(due, now + _LOOK_AGAIN)


class _Decided:
    """What comes of the due times of a schedule up to now."""

    def __init__(
        self, schedule: Schedule, progress: ScheduleProgress, table: ScheduleTable, tx: PostgresTransaction
    ) -> None:
        self.progress = progress
        self.running: list[UUID] = []
        self._schedule = schedule
        self._dag: DeclaredDag | None = None
        self._table = table
        self._tx = tx

    def decide(self, now: datetime) -> None:
        """Decide about each due time up to now, and about the one that waits; starts and cancels runs."""
        schedule = self._schedule
        skips_until = schedule.skips_until or self.progress.decided_until
        after = max(self.progress.decided_until, skips_until)
        found = firings(
            schedule.timetable,
            last_due=after,
            now=now,
            catch_up=None if schedule.catch_up_seconds is None else timedelta(seconds=schedule.catch_up_seconds),
            start=schedule.starts_at,
            end=schedule.ends_at,
        )
        waiting = self.progress.waiting_due_at
        if waiting is not None and schedule.skips_until is not None and waiting <= schedule.skips_until:
            waiting = None
        self.progress = self.progress._replace(
            decided_until=max(after, now), missed=self.progress.missed + found.missed, waiting_due_at=waiting
        )
        if not found.due and waiting is None:
            return
        self._dag = startable(schedule)
        if schedule.overlap is not Overlap.ALLOW:
            self.running = self._table.unended(schedule.id, None, self._tx)
        self._decide_each(found.due)

    def _decide_each(self, due: tuple[datetime, ...]) -> None:
        waiting = self.progress.waiting_due_at
        had = taken(self._schedule.id, [*due, *([waiting] if waiting else [])], self._tx)
        if waiting is not None and not self.running:
            self._wait_for(None)
            if waiting not in had:
                self._start(waiting)
        open_due = [moment for moment in due if moment not in had]
        if self._schedule.overlap is Overlap.CANCEL_RUNNING:  # no run is started to be cancelled at once
            self._skip(len(open_due[:-1]))
            open_due = open_due[-1:]
        for moment in open_due:
            self._decide_about(moment)

    def _decide_about(self, due_at: datetime) -> None:
        is_waiting = self.progress.waiting_due_at is not None
        match decide(self._schedule.overlap, running=bool(self.running), waiting=is_waiting):
            case Decision.START:
                self._start(due_at)
            case Decision.WAIT:
                self._wait_for(due_at)
            case Decision.SKIP:
                self._skip(1)
            case Decision.REPLACE:
                self._skip(is_waiting)
                self._wait_for(None)
                for run_id in self.running:
                    DagRun.hydrate(run_id).cancel(f"schedule {self._schedule.name!r} is due again")
                self.running = []
                self._start(due_at)

    def _skip(self, count: int) -> None:
        self.progress = self.progress._replace(skipped=self.progress.skipped + count)

    def _wait_for(self, due_at: datetime | None) -> None:
        self.progress = self.progress._replace(waiting_due_at=due_at)

    def _start(self, due_at: datetime) -> None:
        """Start the run of a due time; one that cannot be started is noted, and the next is another matter."""
        name = self._schedule.name
        try:
            run = self._schedule._start(due_at, self._dag, due_at=due_at)  # noqa: SLF001 - the worker's half of a schedule
        except NOT_ITS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - what one start raises must not end the schedule
            _log.exception("schedule %s: no run for %s", name, due_at, extra={"action": "schedule_failed"})
            message = f"No run for {due_at.isoformat()}: {error}"
            self.progress = self.progress._replace(last_error=message)
        else:
            _log.info("schedule %s: run %s for %s", name, run.id, due_at, extra={"action": "schedule_fired"})
            self.running.append(run.id)
            self.progress = self.progress._replace(last_error=None)


def startable(schedule: Schedule | Backfill) -> DeclaredDag | None:
    """Give what is to be run, so that a worker decides that can start it; `None` if it is stored and makes no DAG.

    Raises:
        NotRegistered: Another worker is to decide, that has declared it, or not two jobs of one name.
    """
    try:
        return dag_of(schedule)
    except DuplicateRegistration as error:
        raise NotRegistered(error.message) from error
    except (Invalid, RecordDeleted):
        return None  # each start says so


def _text_of(schedule: Schedule) -> str:
    """Write what says when a schedule is due."""
    return to_json([schedule.schedule, schedule.zone, schedule.anchor, schedule.starts_at, schedule.ends_at]).decode()
