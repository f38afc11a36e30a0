"""The numbers of a system that metrics show, cheap whatever the tables hold: an index and a limit, or an estimate.

Owns what `store.health` does not read already. How they are named and shown is `operations.metrics`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import psycopg
from psycopg import errors as pg

from eventic_core.store.executions import RUNS_QUEUE
from eventic_core.store.health import Connections, Letters, OpenTransaction, Running, Waiting
from eventic_core.store.probe import open_aside
from eventic_core.store.sql import statement
from eventic_core.store.workers import LATE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.store.engine import Database

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

MOST: Final = 1000
"""Rows looked at of each queue and list: what reaches it is so much or more."""
_MOST_RUNNING: Final = 10_000
_MOST_DELAYED: Final = 5_000
"""Of all queues together."""
# The planner's settings are those of `store.health`: so that a limit ends a read early, whatever the statistics say.
_OPTIONS: Final = (
    "-c statement_timeout=5s -c lock_timeout=1s -c jit=off -c default_transaction_read_only=on -c TimeZone=UTC "
    "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off"
)
_SQL: Final = {
    **{
        name: statement(f"health_{name}")
        for name in ("ready", "delayed", "running", "letters", "connections", "transactions")
    },
    **{name: statement(f"metrics_{name}") for name in ("workers", "runs", "schedules", "totals")},
}


class LiveWorker(NamedTuple):
    """A worker that lives; `state` is alive, late or draining."""

    slot: str
    app_version: str
    state: str
    running: int
    claimed: int
    beat_seconds: float


class Runs(NamedTuple):
    """Runs of automations that have not ended, and their items by state."""

    runs: int
    paused: int
    pending: int
    processing: int
    retrying: int
    completed: int
    failed: int
    cancelled: int
    skipped: int


class Schedules(NamedTuple):
    """Schedules, those whose last run could not be started, and due times that were missed or skipped."""

    schedules: int
    failing: int
    missed: int
    skipped: int


class Totals(NamedTuple):
    """Bytes, versions ever written, and estimates of rows."""

    size_bytes: int
    versions: int
    record_rows: int
    run_rows: int


class Numbers(NamedTuple):
    """All that was read; `None` is what could not be, for its tables or this role's rights are missing."""

    ready: list[Waiting] | None
    delayed: list[Waiting] | None
    running: list[Running] | None
    workers: list[LiveWorker] | None
    letters: list[Letters] | None
    runs: list[Runs] | None
    schedules: list[Schedules] | None
    connections: list[Connections] | None
    transactions: list[OpenTransaction] | None
    totals: list[Totals] | None


def read(database: Database) -> Numbers | None:
    """Read the numbers on a connection of its own; `None` if Postgres does not answer."""
    try:
        with open_aside(database, program="eventic-metrics", options=_OPTIONS) as connection:
            return _read(connection)
    except (psycopg.Error, OSError):
        return None


def _read(connection: psycopg.Connection[Any]) -> Numbers:
    def rows(name: str, make: Callable[[Row], T], **parameters: Any) -> list[T] | None:
        try:
            found = connection.execute(_SQL[name].encode(), parameters or None).fetchall()
        except (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn, pg.InsufficientPrivilege):
            return None
        except (pg.QueryCanceled, pg.LockNotAvailable):
            return None
        return [make(row) for row in found]

    return Numbers(
        ready=rows("ready", Waiting._make, most=MOST),
        delayed=rows("delayed", Waiting._make, most=_MOST_DELAYED),
        running=rows("running", Running._make, most=_MOST_RUNNING),
        workers=rows("workers", LiveWorker._make, most=MOST, late=LATE_SECONDS),
        letters=rows("letters", Letters._make, most=MOST),
        runs=rows("runs", Runs._make, most=_MOST_DELAYED, queue=RUNS_QUEUE),
        schedules=rows("schedules", Schedules._make),
        connections=rows("connections", Connections._make),
        transactions=rows("transactions", OpenTransaction._make),
        totals=rows("totals", Totals._make),
    )
