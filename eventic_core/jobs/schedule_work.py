"""The work that schedules and backfills are: one piece each that decides, then sleeps until a moment or a run's end.

It holds no thread while it sleeps. What it decided, the runs it started and how long it sleeps commit together, held
to the claim of this worker; so however many workers there are, and whichever die, each thing is decided once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from eventic_core.errors import DuplicateKey, InvalidStateError, VersionConflict
from eventic_core.records.editing import current_scope
from eventic_core.records.port import OwnershipLost, StaleWrite, Work
from eventic_core.records.stamp import acting, current_origin
from eventic_core.runtime import performing
from eventic_core.runtime.finishing import Finish, run_in_transaction
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import Queue
from eventic_core.store.handlers import call_payload
from eventic_core.store.schedules import ScheduleTable
from eventic_core.store.work import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.transaction import PostgresTransaction

SCHEDULE, BACKFILL = "eventic.schedule", "eventic.backfill"
SCHEDULES_QUEUE = "eventic_schedules"
_DISTURBANCES = 10
_UNTRACKED_DELAY_SECONDS = 60.0


def let_workers_decide() -> None:
    """Have workers of this process look at schedules and backfills."""
    performing.define(SCHEDULE, _do_schedule)
    performing.define(BACKFILL, _do_backfill)
    process().queue(Queue(SCHEDULES_QUEUE))


def ensure_queue() -> None:
    """Make the row of the queue, for a writer that may be no worker."""
    process().ensure_queue(Queue(SCHEDULES_QUEUE).row(keyed=False))


def table() -> ScheduleTable:
    """Give the table of schedules on the connected database."""
    return ScheduleTable(process().store)


def work_id(record_id: UUID, version: int) -> str:
    """Name the work of a version of a schedule, or of a job that has one."""
    return f"schedule-{record_id}-{version}"


def enqueue(work_id: str, name: str, values: dict[str, Any]) -> None:
    """Enqueue a piece of this work with what the open scope writes."""
    ensure_queue()
    payload = call_payload({**values, "actor": current_origin().actor})
    scope = current_scope()
    if scope is not None:
        scope.enqueue(Work(work_id, name, SCHEDULES_QUEUE, payload))
    else:  # an undo or a bulk creation, which is about to commit the versions it has checked
        process().store.enqueue([Work(work_id, name, SCHEDULES_QUEUE, payload, delay_seconds=_UNTRACKED_DELAY_SECONDS)])


def taken(schedule_id: UUID, due: Sequence[datetime], tx: PostgresTransaction) -> set[datetime]:
    """Tell which due times of a schedule have a run already, whoever started it."""
    from eventic_core.jobs.dag_run import DagRun

    (key,) = (key for key in DagRun.__eventic__.unique if "due_at" in key.fields)
    values: dict[str, datetime] = {}
    for moment in due:
        value = key.value_in(to_jsonable_python({"schedule_id": schedule_id, "due_at": moment}))
        assert value is not None
        values[value] = moment
    return {values[value] for value in table().taken(key.scope, key.name, list(values), tx)}


def decide_and_sleep(assignment: Assignment, decide: Callable[[], datetime | None]) -> None:
    """Decide in one transaction, which also gives the work back until the moment that is given; `None` completes it.

    Raises:
        OwnershipLost: Somebody else took the work over.
        VersionConflict, DuplicateKey, InvalidStateError: Others keep writing what it decides on.
    """
    for left in reversed(range(_DISTURBANCES)):
        try:
            with acting(actor=assignment.values["actor"]):
                run_in_transaction(assignment.store, decide, _Sleep(assignment), run_id=assignment.run_id, step_id=None)
        except (VersionConflict, StaleWrite, DuplicateKey, InvalidStateError):  # decide on what it is now
            if not left:
                raise
        else:
            return


class _Sleep(Finish):
    def __init__(self, assignment: Assignment) -> None:
        super().__init__()
        self._assignment = assignment

    def write(self, tx: PostgresTransaction | None) -> None:
        assignment = self._assignment
        with assignment.store.transaction(tx) as own:
            if self.result is not None:
                ScheduleTable(assignment.store).sleep(assignment.run_id, assignment.owner, self.result, own)
                return
            outcome = Outcome(assignment.run_id, assignment.owner, "SUCCESS", "null", None)
            if not assignment.store.work.complete(outcome, own):
                raise OwnershipLost(assignment.run_id)


def _do_schedule(assignment: Assignment) -> None:
    from eventic_core.jobs.scheduling import Firing

    Firing(assignment).run()


def _do_backfill(assignment: Assignment) -> None:
    from eventic_core.jobs.backfilling import Filling

    Filling(assignment).run()
