"""Schedule: when a DAG is run by itself, as a record that people make, change and pause.

Owns what is said of a schedule and its checks. What a worker does about it is `scheduling`'s, and how far it has come
is kept beside the record, so that a version of it is always something that somebody changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import AwareDatetime, Field
from pydantic_core import to_jsonable_python

from eventic_core.automation.entity import DomainEntity
from eventic_core.errors import DuplicateKey, DuplicateRegistration, InvalidSchedule, VersionConflict
from eventic_core.jobs import schedule_work
from eventic_core.jobs.dag_run import DagRun
from eventic_core.jobs.entities import Name  # noqa: TC001 - Pydantic evaluates the annotations
from eventic_core.jobs.timetable import Overlap, Timetable
from eventic_core.records import evented, plain
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope, in_scope
from eventic_core.records.state import refuse_deleted, stored_document
from eventic_core.runtime.cron import TICK, in_utc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from eventic_core.jobs.backfill import Backfill
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.entities import Job
    from eventic_core.store.schedules import ScheduleProgress

_RETRIES = 5
"""Times a call is made again because somebody else wrote the schedule meanwhile."""
_LONGEST_SECONDS = 1e12
_TIMES = ("schedule", "zone", "anchor", "starts_at", "ends_at")
"""The fields that say when it is due."""
_RUNS = ("client_id", "dag", "stored", "parameters")
"""Those that say what is run; the first one does of what is stored."""


class Schedule(DomainEntity, unique=["name"]):
    """A DAG that is run whenever it is due, once for each due time.

    Made by `DeclaredDag.schedule` or `StoredDag.schedule`; `Job.as_schedule` gives that of a job, which is not stored.

    Each version begins to hold when it is stored, whoever stores it and however: a worker then looks at the schedule
    as it is. Deleting it ends it; the runs it has started go on.

    Raises:
        InvalidRecord: As any record.
        InvalidSchedule: It is no cron and no interval, the zone is unknown, or it ends before it starts.
        NotRegistered: This process has not declared the DAG, or what does a job of the stored one, which is needed
            where parameters are to be checked.
        Invalid: The parameters do not fit the DAG, or there is no such stored one.
        DuplicateKey: Another one has the name.
    """

    name: Name
    """Its own among all schedules, whatever their tenants."""
    dag: Name
    stored: bool = False
    """Whether it runs what is stored under the name, of its tenant, in place of the declared DAG."""
    job_id: UUID | None = None
    """Of what `Job.as_schedule` gives: the job, which is run in place of a DAG."""
    schedule: str
    """A cron or an interval; see `Timetable.of`."""
    zone: str | None = None
    """Whose clocks a cron goes by; `None` is UTC."""
    anchor: AwareDatetime | None = None
    """One of an interval's due times."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of each run; `due_at` is added if a job takes it."""
    overlap: Overlap = Overlap.SKIP
    """What is done about a due time while an earlier run of the schedule goes on."""
    catch_up_seconds: float | None = Field(default=None, ge=0, le=_LONGEST_SECONDS)
    """How old a due time may be that no worker came to, and still be run for; `None`: the latest one alone is."""
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    """The first moment at which it is due no more."""
    client_id: Name | None = None
    """The tenant of its runs; `None` is none."""
    paused: bool = False
    skips_until: AwareDatetime | None = None
    """No run is started for what was due up to here."""

    def _before_store(self) -> None:
        if self.job_id is not None:
            message = f"The schedule of job {self.name!r} is what its record says: change job.schedule, zone or paused."
            raise InvalidSchedule(message)
        before = stored_document(self) if self.is_stored else {}
        now = to_jsonable_python({name: getattr(self, name) for name in (*_TIMES, *_RUNS)})
        if any(before.get(name) != now[name] for name in _TIMES):
            self._check_times()
        if any(before.get(name, False) != now[name] for name in (_RUNS if self.stored else _RUNS[1:])):
            self._check_parameters()
        generation = self.version + 1
        values = {"schedule": str(self.id), "generation": generation}
        schedule_work.enqueue(schedule_work.work_id(self.id, generation), schedule_work.SCHEDULE, values)

    def _check_times(self) -> None:
        _ = self.timetable
        if self.starts_at is not None and self.ends_at is not None and self.starts_at >= self.ends_at:
            message = f"Schedule {self.name!r} ends at {self.ends_at}, before it starts. Give a later ends_at=."
            raise InvalidSchedule(message)

    def _check_parameters(self) -> None:
        from eventic_core.jobs.declared_dag import find
        from eventic_core.jobs.definition import define
        from eventic_core.jobs.starting import checked
        from eventic_core.jobs.stored import written_dag

        # What is stored is read as it is written: no query may flush while this is written itself.
        dag = define(written_dag(self.dag, self.client_id)) if self.stored else find(self.dag)
        checked(dag, parameters_at(dag, self.parameters, schedule_work.table().now()))

    @property
    def timetable(self) -> Timetable:
        """When it is due, apart from its start and end."""
        return Timetable.of(self.schedule, zone=self.zone, anchor=self.anchor)

    # -- steering

    @evented(retry=_RETRIES)
    def pause(self) -> None:
        """Start no more runs until `resume`; none is started once this has returned. What runs goes on."""
        if self.job_id is not None:
            self._job().update(paused=True)
        self.paused = True

    @evented(retry=_RETRIES)
    def resume(self, *, catch_up: bool = False) -> None:
        """Go on after `pause`.

        Args:
            catch_up: Whether due times of the pause are made up for like others that were missed. Without, and that is
                what pausing mostly means, they are left out, as a job's always are.

        Raises:
            InvalidSchedule: It is a job's, and they are to be made up for.
        """
        if self.job_id is not None:
            self._resume_job(catch_up=catch_up)
        elif self.paused:
            skips_until = self.skips_until if catch_up else schedule_work.table().now()
            self.update(paused=False, skips_until=skips_until)

    @plain
    def run_now(self, *, correlation_id: str | None = None) -> DagRun:
        """Start a run at once, paused or not and whatever runs; it counts as a run of the schedule that goes on.

        It is for no due time. A job's parameter `due_at` is given the moment.

        Raises:
            RecordDeleted: The schedule is deleted.
            NotRegistered: This process has not declared the DAG.
            Invalid: Its parameters do not fit the DAG any more.
        """
        refuse_in_loop("run_now()", "asyncio.to_thread(schedule.run_now)")
        return self._start(schedule_work.table().now(), correlation_id=correlation_id)

    @plain
    def backfill(self, start: datetime, end: datetime, *, at_a_time: int = 1, limit: int = 10_000) -> Backfill:
        """Run for the due times from a start on and before an end, oldest first, whether there was a schedule then.

        Those that have a run of the schedule already are left out. The timetable and the parameters are those of now.
        Its runs and those of the schedule itself do not wait for each other.

        Args:
            start: The first moment.
            end: The first moment after; not later than now, for what is due then the schedule does by itself.
            at_a_time: How many of its runs go on at once at most.
            limit: How many due times there may be.

        Raises:
            RecordDeleted: The schedule is deleted.
            InvalidBackfill: The range has no due time in it, or more than the limit, or ends in the future.
            InvalidRecord: `at_a_time` is not positive.
            Invalid: A moment has no time zone, or the limit is not positive.
        """
        from eventic_core.jobs.backfill import backfill

        refuse_in_loop("backfill()", "asyncio.to_thread(schedule.backfill, ...)")
        refuse_deleted(self)
        return backfill(self, in_utc(start), in_utc(end), at_a_time=at_a_time, limit=limit)

    def _job(self) -> Job:
        from eventic_core.jobs.entities import Job

        assert self.job_id is not None
        return Job.hydrate(self.job_id)

    def _resume_job(self, *, catch_up: bool) -> None:
        if catch_up:
            message = f"What job {self.name!r} was due for in its pause is not made up for: resume() it, and backfill."
            raise InvalidSchedule(message)
        self._job().update(paused=False)
        self.paused = False

    # -- questions

    @plain
    def next_due(self, count: int = 1) -> list[datetime]:
        """List the next due times from now on, by the database's clock, in UTC; paused or not."""
        refuse_in_loop("next_due()", "asyncio.to_thread(schedule.next_due)")
        after = schedule_work.table().now()
        if self.starts_at is not None:
            after = max(after, self.starts_at - TICK)
        found: list[datetime] = []
        while len(found) < count:
            after = self.timetable.next_after(after)
            if self.ends_at is not None and after >= self.ends_at:
                break
            found.append(after)
        return found

    @plain
    def runs(self, *, limit: int | None = 100) -> list[DagRun]:
        """List its runs, those of its backfills included, the last one started first."""
        refuse_in_loop("runs()", "asyncio.to_thread(schedule.runs)")
        query = DagRun.where(schedule_id=self.id).order_by(-DagRun.fields.id)
        found: list[DagRun] = (query if limit is None else query.limit(limit)).all()
        return found

    @plain
    def backfills(self) -> list[Backfill]:
        """List its backfills, the last one first."""
        from eventic_core.jobs.backfill import Backfill

        refuse_in_loop("backfills()", "asyncio.to_thread(schedule.backfills)")
        found: list[Backfill] = Backfill.where(schedule_id=self.id).order_by(-Backfill.fields.id).all()
        return found

    @plain
    def progress(self) -> ScheduleProgress | None:
        """Tell how far it has come: up to when, what was missed and skipped; `None` before a worker looked at it."""
        refuse_in_loop("progress()", "asyncio.to_thread(schedule.progress)")
        return schedule_work.table().progress([self.id]).get(self.id)

    # -- runs

    def _start(self, moment: datetime, dag: DeclaredDag | None = None, **more: Any) -> DagRun:
        from eventic_core.jobs.definition import dag_of
        from eventic_core.jobs.starting import start

        refuse_deleted(self)
        dag = dag or dag_of(self)
        fields = {"correlation_id": None, "schedule_id": self.id, "client_id": self.client_id, **more}
        return start(dag, parameters_at(dag, self.parameters, moment), **fields)


def parameters_at(dag: DeclaredDag, parameters: Mapping[str, Any], due_at: datetime) -> dict[str, Any]:
    """Give a run's parameters: with its due time, if a job takes it as `due_at` and it is not given."""
    takes = any(
        "due_at" in job.parameters
        and "due_at" not in dag.arguments[job.name]
        and "due_at" not in dag.parameters_of(job, {})  # which is what a stored job's record says
        for job in dag.jobs.values()
    )
    return {**({"due_at": due_at.isoformat()} if takes else {}), **parameters}


def scheduled(
    dag: DeclaredDag,
    schedule: str | timedelta | float,
    *,
    name: str | None,
    zone: str | None,
    anchor: datetime | None,
    overlap: Overlap | str,
    catch_up: timedelta | None,
    starts_at: datetime | None,
    ends_at: datetime | None,
    parameters: Mapping[str, Any] | None,
    client_id: str | None,
    stored: bool = False,
) -> Schedule:
    """Store a schedule of a DAG, or bring it up to date; see `DeclaredDag.schedule` and `StoredDag.schedule`."""
    from eventic_core.jobs.starting import checked

    refuse_in_loop("schedule()", "schedule_async()")
    timetable = Timetable.of(schedule, zone=zone, anchor=anchor)
    given = dict(parameters or {})
    known = checked(dag, parameters_at(dag, given, schedule_work.table().now()))
    values = {
        "name": (name or dag.name).strip(),
        "dag": dag.name,
        "stored": stored,
        "schedule": timetable.text,
        "zone": timetable.zone,
        "anchor": timetable.anchor,
        "parameters": {parameter: known[parameter] for parameter in given},
        "overlap": overlap,
        "catch_up_seconds": None if catch_up is None else catch_up.total_seconds(),
        "starts_at": None if starts_at is None else in_utc(starts_at),
        "ends_at": None if ends_at is None else in_utc(ends_at),
        "client_id": client_id,
    }
    schedule_work.ensure_queue()  # before a transaction is open, in which it could not be made
    for left in reversed(range(_RETRIES)):
        try:
            found = _brought_up_to_date(values)
        except (DuplicateKey, VersionConflict):  # another process of the application starts just now
            if in_scope() or not left:
                raise
        else:
            schedule_work.table().adopt(
                schedule_work.work_id(found.id, found.version)
            )  # by the workers of what starts now
            return found
    raise AssertionError


def _brought_up_to_date(values: dict[str, Any]) -> Schedule:
    with edit_scope(default_reason="schedule", call="schedule()", instead="schedule_async()"):
        found = Schedule.where(Schedule.fields.name == values["name"]).first()
        if found is None:
            return Schedule(**values)
        for field in ("dag", "stored", "client_id"):
            if getattr(found, field) != values[field]:
                message = (
                    f"Schedule {found.name!r} is there with {field}={getattr(found, field)!r}, not {values[field]!r}. "
                    "Give this one another name=, or delete that one."
                )
                raise DuplicateRegistration(message)
        found.update(**values)
    return found
