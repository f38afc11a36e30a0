"""The work of a backfill: it starts runs for due times, so many at a time, and sleeps until one of them ends."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.automation.status import ExecutionStatus
from eventic_core.jobs.backfill import BACKFILL_ID, Backfill
from eventic_core.jobs.definition import dag_of
from eventic_core.jobs.schedule import parameters_at
from eventic_core.jobs.schedule_work import decide_and_sleep, taken
from eventic_core.jobs.scheduling import NOT_ITS_FAULT, startable
from eventic_core.jobs.starting import start
from eventic_core.records.stamp import acting
from eventic_core.runtime.cron import TICK
from eventic_core.store.schedules import ScheduleTable
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from datetime import datetime

    from eventic_core.runtime.performing import Assignment

_log = logging.getLogger("eventic")
_AT_ONCE = 500
"""Due times looked at in one transaction, most of which may have a run already."""
_LOOK_AGAIN = timedelta(minutes=1)
"""After this long a backfill looks for itself, should nobody have woken it."""


class Filling:
    """One claim of a backfill's work."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._backfill_id = UUID(assignment.values["backfill"])
        self._table = ScheduleTable(assignment.store)
        self._waits = WaitTable(assignment.store)

    def run(self) -> None:
        """Start what there is room for; the work sleeps until a run ends, or is complete, when this returns.

        Raises:
            OwnershipLost: Somebody else took it over.
            NotRegistered: This process has not declared the DAG.
        """
        decide_and_sleep(self._assignment, self._decide)

    def _decide(self) -> datetime | None:
        tx = transaction_of_scope()
        backfill = Backfill.where(Backfill.fields.id == self._backfill_id).first()
        if backfill is None or backfill.status.is_finished:
            return None
        if backfill.status == ExecutionStatus.PENDING:
            backfill.start()
        running = self._table.unended(backfill.schedule_id, backfill.id, tx)
        due = self._next_due(backfill)
        had = taken(backfill.schedule_id, due, tx)
        started: list[UUID] = []
        decided: list[datetime] = []
        for moment in due:
            if moment not in had:
                if len(running) + len(started) >= backfill.at_a_time:
                    break
                run_id = self._start(backfill, moment)
                if run_id is None:
                    return None
                started.append(run_id)
            decided.append(moment)
        if decided:
            backfill.update(
                decided_until=decided[-1],
                started_count=backfill.started_count + len(started),
                skipped_count=backfill.skipped_count + len(decided) - len(started),
            )
        running += started
        is_full, is_last = len(decided) < len(due), len(due) < _AT_ONCE
        if not running and is_last:
            backfill.complete()
            return None
        if is_full or is_last:
            self._waits.add(self._assignment.run_id, running, tx)  # none of them can end before this commits
            return self._table.now() + _LOOK_AGAIN
        return self._table.now()

    @staticmethod
    def _next_due(backfill: Backfill) -> list[datetime]:
        after = backfill.decided_until or backfill.from_at - TICK
        return backfill.timetable.due_between(after, backfill.until_at - TICK, limit=_AT_ONCE)

    @staticmethod
    def _start(backfill: Backfill, due_at: datetime) -> UUID | None:
        """Start the run of a due time; a backfill of which one cannot be started has failed."""
        dag = startable(backfill)
        try:
            dag = dag or dag_of(backfill)
            with acting(reason=f"backfill {backfill.id}"):
                run = start(
                    dag,
                    parameters_at(dag, backfill.parameters, due_at),
                    correlation_id=None,
                    schedule_id=backfill.schedule_id,
                    due_at=due_at,
                    client_id=backfill.client_id,
                    properties={BACKFILL_ID: str(backfill.id)},
                )
        except NOT_ITS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - it is stored as the backfill's
            _log.exception("backfill %s: no run for %s", backfill.id, due_at, extra={"action": "backfill_failed"})
            backfill.fail(f"No run for {due_at.isoformat()}: {error}")
            return None
        return run.id
