"""Job and JobDependency: what there is to do, by itself or as part of a DAG, when, and what waits for what.

Owns fields and their checks, whichever way a version is written. Whether dependencies make a DAG is told by `edges`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import Field, StringConstraints
from pydantic_core import to_json

from eventic_core.automation.entity import DomainEntity
from eventic_core.errors import InvalidRecord, InvalidSchedule
from eventic_core.graph import TriggerRule
from eventic_core.records import plain
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import edit_scope
from eventic_core.records.record_class import UniqueKey
from eventic_core.records.state import refuse_deleted, stored_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.schedule import Schedule

DEFAULT_PRIORITY = 5
"""Of a job that says none; lower comes first."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]


class Job(DomainEntity):
    """A piece of work: one that is declared in code under `function`, with what the declaration leaves to say.

    The name is its own in the DAG of the tenant; jobs without a DAG, or without a tenant, are among each other.

    Raises:
        InvalidRecord: As any record.
        UnknownRule: There is no such trigger rule.
        InvalidSchedule: The schedule is no cron and no interval, or the zone is unknown, or without a cron; or the job
            is part of a DAG, which is to be scheduled then.
        CycleFound: It is brought back, with dependencies that meanwhile would make a cycle.
        InvalidDag: It is moved to another DAG or tenant, and has dependencies.
    """

    name: Name
    description: str | None = None
    client_id: Name | None = None
    """The tenant; `None` is none."""
    dag: Name | None = None
    """The name of the DAG it is part of; `None`: by itself."""
    schedule: str | None = None
    """When it runs by itself, if it is part of no DAG: a cron or an interval; see `Timetable.of`."""
    zone: str | None = None
    """Whose clocks the cron goes by; `None` is UTC."""
    paused: bool = False
    """Whether it does not run by itself for now; what is due meanwhile is left out."""
    rule: TriggerRule = TriggerRule.ALL_SUCCESS
    """When it runs, told from what it waits for."""
    retries: int = Field(default=0, ge=0)
    priority: int = Field(default=DEFAULT_PRIORITY, ge=0)
    """Lower comes first."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    function: Name | None = None
    """The name of the declared job that does it; `None`: its own name."""
    map_over: Name | None = None
    """The argument it is done for each element of."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Arguments that no other job gives."""
    declared: bool = False
    """Whether `DeclaredDag.stored` stored it, which then keeps its rule and priority as the code says."""

    @classmethod
    def _new(cls, values: dict[str, Any]) -> Self:
        _check_rule(values)
        return super()._new(values)

    def _assign(self, values: dict[str, Any], call: str, instead: str) -> None:
        _check_rule(values)
        super()._assign(values, call, instead)

    @classmethod
    def create_many(
        cls, rows: Iterable[Mapping[str, Any] | Self], *, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Create many through COPY, and have those with a schedule run by it; see `Record.create_many`.

        All are read first.
        """
        from eventic_core.jobs import schedule_work

        refuse_in_loop("create_many()", "create_many_async()")
        given = list(rows)
        schedules = [
            row.get("schedule") if isinstance(row, Mapping) else getattr(row, "schedule", None) for row in given
        ]
        if any(schedule is not None for schedule in schedules):
            schedule_work.ensure_queue()  # before a transaction is open, in which it could not be made
        with edit_scope():  # so that the work of those that have a schedule is enqueued with them
            return super().create_many(given, progress=progress)

    # -- runs

    @plain
    def run(self, *, correlation_id: str | None = None, **parameters: Any) -> DagRun:
        """Run it at once, by itself: a DAG of one, of its name, as `StoredDag.start` runs many.

        It is as this object is; what it waits for takes no part.

        Args:
            correlation_id: Stamped on everything the run writes.
            parameters: Of its function; before what the record says.

        Raises:
            NotRegistered: This process has not declared what does it.
            DuplicateRegistration: It has declared two jobs of one name.
            InvalidDag: It is part of a DAG, or mapped.
            Invalid: A parameter is unknown, missing, or does not fit; or it is a draft.
            RecordDeleted: It is deleted.
        """
        from eventic_core.jobs.definition import define_job
        from eventic_core.jobs.starting import start

        refuse_in_loop("run()", "run_async()")
        refuse_deleted(self)
        self._refuse_draft("run()")
        return start(define_job(self), parameters, correlation_id=correlation_id, client_id=self.client_id)

    @plain
    async def run_async(self, *, correlation_id: str | None = None, **parameters: Any) -> DagRun:
        """Run it at once, without blocking the event loop; see `run`."""
        return await in_thread(self.run, correlation_id=correlation_id, **parameters)

    @plain
    def as_schedule(self) -> Schedule:
        """Give what its record says as a schedule, which is not stored: to ask, pause, run now and backfill.

        Its runs overlap by `skip`, and of due times that nobody came to the latest one is made up for.

        Raises:
            InvalidSchedule: It has none, or is part of a DAG.
            Invalid: It is a draft.
            RecordDeleted: It is deleted.
        """
        from eventic_core.jobs.job_schedule import schedule_of

        refuse_deleted(self)
        self._refuse_draft("as_schedule()")
        return schedule_of(self)

    def _before_store(self) -> None:
        before = stored_document(self) if self.is_stored else {}
        if any(getattr(self, name) != before.get(name) for name in ("schedule", "zone", "dag")):
            self._check_schedule()
        if before:
            self._check_place(before)
        from eventic_core.jobs import job_schedule

        job_schedule.enqueue(self)

    def _check_place(self, before: dict[str, Any]) -> None:
        from eventic_core.jobs import edges

        place, was = edges.place_of(self), edges.Place(before.get("client_id"), before.get("dag"))
        if place != was:
            edges.check_move(self, was)
        if self.deleted:  # and so about to be brought back
            edges.check_restored(self)

    def _check_schedule(self) -> None:
        if self.schedule is None:
            if self.zone is None:
                return
            message = f"Job {self.name!r} has the zone {self.zone!r} but no schedule. Give a cron, or no zone."
            raise InvalidSchedule(message)
        if self.dag is not None:
            message = (
                f"Job {self.name!r} is part of DAG {self.dag!r} and cannot have a schedule of its own: schedule the "
                f"DAG, with stored_dag({self.dag!r}, ...).schedule({self.schedule!r}). Nothing was stored."
            )
            raise InvalidSchedule(message)
        from eventic_core.jobs.timetable import Timetable

        Timetable.of(self.schedule, zone=self.zone)


class _WholeKey(UniqueKey):
    """A key in which a null is a value like others, instead of freeing it."""

    __slots__ = ()

    def value_in(self, document: dict[str, Any]) -> str:
        return to_json([document.get(name) for name in self.fields]).decode()


# In place of the class keyword: two jobs without a tenant, or without a DAG, must not have one name either.
Job.__eventic__ = dataclasses.replace(Job.__eventic__, unique=(_WholeKey("Job", ("client_id", "dag", "name")),))


class JobDependency(
    DomainEntity,
    unique=[("job_id", "depends_on_id"), ("job_id", "argument")],
    indexes=["job_id", "depends_on_id"],
):
    """A job that waits for another one of the same tenant and DAG.

    Whoever writes one waits for others who write in the same DAG, until their transactions end. A dependency of a
    deleted job takes no part; it is back when the job is.

    Raises:
        CycleFound: The job would wait for itself, directly or through others; has the names of all.
        UnknownJob: There is no such job, or it is deleted, or another tenant's.
        InvalidDag: The two are in different DAGs.
        DuplicateKey: The one waits for the other already, or the argument is given by a third.
        ScopeError: In a workflow's body: call a function with `@Eventic.transaction()` there.
    """

    job_id: UUID
    """The job that waits."""
    depends_on_id: UUID
    """The one it waits for."""
    argument: Name | None = None
    """The parameter of the job that takes the result of the one it waits for."""
    declared: bool = False
    """Whether `DeclaredDag.stored` stored it, which deletes it when the code has it no more."""

    @classmethod
    def create_many(
        cls, rows: Iterable[Mapping[str, Any] | Self], *, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Create many through COPY; see `Record.create_many`. All are read first, and checked at once.

        Raises:
            CycleFound, UnknownJob, InvalidDag: As for one; nothing is stored.
        """
        from eventic_core.jobs import edges

        refuse_in_loop("create_many()", "create_many_async()")
        made = [cls._drafted(row) for row in rows]
        with edit_scope() as scope:
            scope.flush()  # so that what it writes before them is seen, and is not checked later
            edges.check_dependencies([row for row in made if isinstance(row, cls)])
            return super().create_many(made, progress=progress)

    @classmethod
    def _drafted(cls, row: Mapping[str, Any] | Self) -> Mapping[str, Any] | Self:
        """Make a draft of a row, which keeps its id; one that does not fit is left to be refused with its number."""
        with suppress(InvalidRecord, TypeError, ValueError):
            return row if isinstance(row, cls) else cls._new(dict(row))
        return row

    def _before_store(self) -> None:
        if self._changes_graph():
            from eventic_core.jobs import edges

            edges.check_dependencies([self])

    def _changes_graph(self) -> bool:
        """Tell whether writing it now adds to what depends on what: it is new, brought back or of other jobs."""
        if not self.is_stored or self.deleted:
            return True
        before = stored_document(self)
        return (str(self.job_id), str(self.depends_on_id)) != (before["job_id"], before["depends_on_id"])


def _check_rule(values: dict[str, Any]) -> None:
    """Refuse an unknown rule by its own error, which validation would hide.

    Raises:
        UnknownRule: There is no such rule.
    """
    if "rule" in values:
        TriggerRule(values["rule"])
