"""Schedules, as a table: how far each has come, by the database's clock. What is due when is decided in `jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventic_core.records.port import OwnershipLost
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_CLOCK = statement("clock")
_HOLD_VERSION = statement("hold_schedule_version")
_HOLD = statement("hold_schedule")
_NOTE = statement("note_schedule")
_READ = statement("schedules")
_UNENDED = statement("unended_runs")
_TAKEN = statement("taken_keys")
_SLEEP = statement("sleep_until")
_ADOPT = statement("adopt_work")


class ScheduleProgress(NamedTuple):
    """How far a schedule has come.

    Attributes:
        timetable: By which it was decided, as text.
        decided_until: No due time up to here is open: its run was started or waits, or it was skipped or missed.
        waiting_due_at: The due time whose run waits for another one to end; `None`: none does.
        missed: Due times that no worker came to while they were to be made up for.
        skipped: Due times for which nothing was started since another run went on.
        last_error: Why the run that was due last could not be started; `None` if it was.
    """

    timetable: str
    decided_until: datetime
    waiting_due_at: datetime | None
    missed: int
    skipped: int
    last_error: str | None


class ScheduleTable:
    """Schedules on one database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def now(self) -> datetime:
        """Give the moment, by the database's clock."""
        moment: datetime = self._store.database.fetch(_CLOCK, ())[0][0]
        return moment

    def hold_version(self, schedule_id: UUID, version: int, tx: PostgresTransaction) -> bool:
        """Keep others from changing a schedule until the transaction ends; false if it is at another version."""
        return bool(tx.fetch(_HOLD_VERSION, (schedule_id, version)))

    def hold(
        self, schedule_id: UUID, tx: PostgresTransaction, *, timetable: str, since: datetime
    ) -> tuple[ScheduleProgress, datetime]:
        """Read how far a schedule has come, and keep others from moving it until the transaction ends.

        Args:
            schedule_id: The schedule.
            tx: The transaction.
            timetable: Of a schedule that nobody has looked at yet.
            since: Up to where nothing is to be decided for such a one.

        Returns:
            How far it has come, and the moment.
        """
        *progress, moment = tx.fetch(_HOLD, (schedule_id, timetable, since))[0]
        return ScheduleProgress._make(progress), moment

    def note(self, schedule_id: UUID, progress: ScheduleProgress, tx: PostgresTransaction) -> None:
        """Store how far a schedule has come now."""
        tx.fetch(_NOTE, {"schedule": schedule_id, **progress._asdict()})

    def progress(self, schedule_ids: Sequence[UUID]) -> dict[UUID, ScheduleProgress]:
        """Read how far schedules have come; those nobody has looked at yet are left out."""
        rows = self._store.database.fetch(_READ, (list(schedule_ids),))
        return {row[0]: ScheduleProgress._make(row[1:]) for row in rows}

    def unended(self, schedule_id: UUID, backfill_id: UUID | None, tx: PostgresTransaction) -> list[UUID]:
        """List the runs of a schedule, or of one of its backfills, that go on; none ends until the transaction does."""
        backfill = None if backfill_id is None else str(backfill_id)
        parameters = {"schedule": str(schedule_id), "backfill": backfill}
        return [run_id for (run_id,) in tx.fetch(_UNENDED, parameters)]

    def taken(self, scope: str, name: str, values: Sequence[str], tx: PostgresTransaction) -> set[str]:
        """Tell which of these values of a unique key, which a class declares, records have."""
        return {value for (value,) in tx.fetch(_TAKEN, (scope, name, list(values)))} if values else set()

    def sleep(self, work_id: str, owner: str, until: datetime, tx: PostgresTransaction) -> None:
        """Give claimed work back until a moment, when the transaction commits.

        Raises:
            OwnershipLost: It is somebody else's.
        """
        if not tx.fetch(_SLEEP, (until, work_id, owner)):
            raise OwnershipLost(work_id)

    def adopt(self, work_id: str) -> None:
        """Have work that sleeps done by workers of this process's application version from now on."""
        version = self._store.work.app_version
        self._store.database.fetch(_ADOPT, (version, work_id, version))
