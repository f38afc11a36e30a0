"""The schedule of a stored job that is part of no DAG: what its record says, read whenever something is decided.

There is no second record to be kept in step with it: whichever way the job is stored, changed, deleted or brought
back, its work is enqueued with the version, or finds the version gone. Knows nothing of what is done when it is due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.errors import InvalidSchedule
from eventic_core.jobs import schedule_work
from eventic_core.jobs.schedule import Schedule
from eventic_core.records.state import prepare_draft

if TYPE_CHECKING:
    from datetime import datetime

    from eventic_core.jobs.entities import Job

_LOOKED_BACK = 50
"""Versions of a job looked at for since when it has its schedule; one with more has it since the earliest of these."""


def is_fired(job: Job) -> bool:
    """Tell whether what a record says has the job run by itself."""
    return job.schedule is not None and job.dag is None and not job.paused


def enqueue(job: Job) -> None:
    """Enqueue the work of the version that is about to be stored, if that is to be fired."""
    if is_fired(job):
        generation = job.version + 1
        values = {"job": str(job.id), "generation": generation}
        schedule_work.enqueue(schedule_work.work_id(job.id, generation), schedule_work.SCHEDULE, values)


def schedule_of(job: Job) -> Schedule:
    """Give what a job's record says as a schedule; see `Job.as_schedule`."""
    if job.schedule is None or job.dag is not None:
        message = f"Job {job.name!r} has no schedule of its own: assign job.schedule, of a job that is part of no DAG."
        raise InvalidSchedule(message)
    values = {"name": job.name, "dag": job.name, "job_id": job.id, "client_id": job.client_id, "paused": job.paused}
    made: Schedule = Schedule.draft({**values, "schedule": job.schedule, "zone": job.zone})
    prepare_draft(made, job.id)  # under which its runs and its progress are kept
    return made


def fired_since(job: Job) -> datetime:
    """Give the moment from which on a job has had its timetable without a break, for none was due before."""
    since = job.stamp.recorded_at
    for past in job.history(limit=_LOOKED_BACK):
        if past.deleted or not is_fired(past) or (past.schedule, past.zone) != (job.schedule, job.zone):
            break
        since = past.stamp.recorded_at
    return since
