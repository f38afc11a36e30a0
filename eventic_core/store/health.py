"""What a database says of its health: the server, the workers, the work that waits, and what stands in the way.

Owns the reads, cheap whatever the tables hold: an index and a limit, never a count of everything. They write nothing
and do with the rights of an application. What any of it means is `runtime.doctor`'s.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import psycopg
from psycopg import errors as pg

from eventic_core.errors import ConfigurationError, StoreUnavailable
from eventic_core.settings import libpq_url, safe_url
from eventic_core.store.migrate import needed_revision
from eventic_core.store.slots import SPACE  # what its locks are known by
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

MOST: Final = 1000
"""Rows looked at of each queue, and of other lists that may be long: what reaches it is "1,000 or more"."""
_MOST_RUNNING: Final = 10_000  # there are no more of these than workers have threads
_DBOS_REVISION: Final = 125  # of the DBOS we are pinned to; tests hold it to what DBOS itself makes
_SESSION: Final = """
set default_transaction_read_only = on; set statement_timeout = '10s'; set lock_timeout = '1s'; set jit = off;
set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off
"""  # the latter so that a limit ends a read early, whatever the statistics make the planner believe

_SQL: Final = {
    name: statement(f"health_{name}")
    for name in (
        *(
            "server",
            "connections",
            "workers",
            "revision",
            "dbos_revision",
            "newest_version",
            "queues",
            "ready",
            "beats",
        ),
        *("delayed", "running", "ended", "letters", "transactions", "horizon", "vacuum", "sizes", "paused"),
    )
} | {"clock": statement("clock"), "feed_ahead": statement("feed_ahead")}


class Unread(NamedTuple):
    """In place of facts that could not be read.

    Attributes:
        is_absent: Whether the tables are not there, which is no fault of the reading.
    """

    why: str
    is_absent: bool = False


class Server(NamedTuple):
    """The server; `latency_seconds` is the quickest round trip, `ahead_seconds` its clock's lead over ours.

    Attributes:
        off: Settings that should be on and are off.
        transaction_age: Transactions since the oldest one that vacuum has not frozen.
    """

    version_number: int
    version: str
    is_replica: bool
    is_read_only: bool
    off: list[str]
    encoding: str
    transaction_age: int
    database: str
    role: str
    latency_seconds: float
    ahead_seconds: float


class Connections(NamedTuple):
    """Connections in use, and how many an application may have; `database_limit` is `None` where there is none."""

    used: int
    of_database: int
    limit: int
    database_limit: int | None


class Revisions(NamedTuple):
    """Revisions of our tables and of DBOS's, `None` where there are none."""

    found: str | Unread | None
    needed: str
    dbos_found: int | Unread | None
    dbos_needed: int = _DBOS_REVISION


class WorkerSession(NamedTuple):
    """Who holds a slot, or says so; what cannot be seen, or an older release does not say, is `None`.

    Attributes:
        seen_seconds: Since it last said that it is alive.
        queues: Those it serves.
    """

    slot: str
    up_seconds: float | None
    machine: str | None
    seen_seconds: float | None = None
    version: str | None = None
    queues: list[str] | None = None
    is_draining: bool = False


class Pause(NamedTuple):
    """A queue of which nothing is claimed."""

    queue: str
    seconds: float
    by: str | None


class QueueFacts(NamedTuple):
    """A registered queue; `is_limited` is by a limit over all workers."""

    name: str
    has_lanes: bool
    is_limited: bool


class Waiting(NamedTuple):
    """Work of one queue that is ready or delayed and alike in what decides who may take it.

    Attributes:
        version: The application version it is for; `None` is whichever is newest.
        waiting_for: What a worker missed that had taken it.
        times: How often the one that was given back most often was.
        oldest_seconds: How long the first of it has been ready, or due; below 0 if it is still to come.
    """

    queue: str
    version: str | None
    keyless: bool
    waiting_for: str | None
    times: int
    run_count: int
    is_more: bool
    oldest_seconds: float


class Running(NamedTuple):
    """Runs that were begun; `begun` is how often the one was that did not end most often."""

    executor: str | None
    version: str | None
    queue: str | None
    run_count: int
    begun: int
    is_more: bool


class Ended(NamedTuple):
    """That a process has lately ended runs, the last one this long ago."""

    executor: str
    version: str | None
    queue: str | None
    seconds: float


class Letters(NamedTuple):
    """Open dead letters of a handler, the first from this long ago."""

    handler: str
    letter_count: int
    oldest_seconds: float
    is_more: bool


class OpenTransaction(NamedTuple):
    """A transaction that holds back the change feed, vacuum or both; `pid` is `None` for a prepared one."""

    pid: int | None
    program: str
    user: str | None
    database: str | None
    machine: str
    state: str | None
    seconds: float
    holds_feed: bool
    holds_vacuum: bool


class Horizon(NamedTuple):
    """How many transactions the change feed stands behind, and how many sessions cannot be looked into."""

    behind: int
    hidden: int


class TableFacts(NamedTuple):
    """Rows of a table by Postgres' count; `vacuumed_seconds` ago, `None` for never."""

    name: str
    alive: int
    dead: int
    vacuumed_seconds: float | None
    is_excluded: bool


class Size(NamedTuple):
    """Bytes of a table with its indexes; the database as a whole has no name."""

    name: str
    size_bytes: int


class Health(NamedTuple):
    """All that was read; lists are `Unread` where this role may not read them, or there are no tables."""

    server: Server
    connections: Connections | Unread
    revisions: Revisions
    workers: list[WorkerSession] | Unread
    paused: list[Pause] | Unread
    newest_version: str | Unread | None
    queues: list[QueueFacts] | Unread
    ready: list[Waiting] | Unread
    delayed: list[Waiting] | Unread
    running: list[Running] | Unread
    ended: list[Ended] | Unread
    letters: list[Letters] | Unread
    transactions: list[OpenTransaction] | Unread
    horizon: Horizon | Unread
    is_feed_ahead: bool | Unread
    tables: list[TableFacts] | Unread
    sizes: list[Size] | Unread


def read(url: str) -> Health:
    """Read the health of a database, on one connection of its own; the database may be empty.

    Raises:
        StoreUnavailable: It cannot be reached, or was lost meanwhile.
        ConfigurationError: `url` is not one of Postgres.
    """
    dsn = libpq_url(url)
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5, application_name="eventic-doctor") as connection:
            connection.execute(_SESSION)
            return _read(connection)
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise ConfigurationError(f"The database URL {safe_url(dsn)!r} cannot be read: {_line(error)}") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise StoreUnavailable(f"Postgres at {safe_url(dsn)} does not answer: {_line(error)}.") from error


def _line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]


def _read(connection: psycopg.Connection[Any]) -> Health:
    def rows(name: str, **parameters: Any) -> list[Row] | Unread:
        try:
            return connection.execute(_SQL[name].encode(), parameters or None).fetchall()
        except (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn):
            return Unread("its tables are not there, or older", is_absent=True)
        except pg.InsufficientPrivilege as error:
            return Unread(f"not visible to this role ({error.diag.message_primary})")
        except (pg.QueryCanceled, pg.LockNotAvailable):
            return Unread("Postgres did not answer in time")

    return Health(
        server=_server(connection),
        connections=_one(rows("connections"), Connections._make),
        revisions=Revisions(_revision(rows("revision")), needed_revision(), _revision(rows("dbos_revision"))),
        workers=_workers(rows("workers", space=SPACE), rows("beats", most=MOST)),
        paused=_all(rows("paused", most=MOST), Pause._make),
        newest_version=_revision(rows("newest_version")),
        queues=_all(rows("queues"), QueueFacts._make),
        ready=_all(rows("ready", most=MOST), Waiting._make),
        delayed=_all(rows("delayed", most=MOST), Waiting._make),
        running=_all(rows("running", most=_MOST_RUNNING), Running._make),
        ended=_all(rows("ended", most=MOST), Ended._make),
        letters=_all(rows("letters", most=MOST), Letters._make),
        transactions=_all(rows("transactions"), OpenTransaction._make),
        horizon=_one(rows("horizon"), Horizon._make),
        is_feed_ahead=_one(rows("feed_ahead"), lambda row: bool(row[0])),
        tables=_all(rows("vacuum"), TableFacts._make),
        sizes=_all(rows("sizes"), Size._make),
    )


def _server(connection: psycopg.Connection[Any]) -> Server:
    """Read what every role may; the clocks are compared over the quickest of some round trips."""
    (row,) = connection.execute(_SQL["server"].encode()).fetchall()
    trips = []
    for _ in range(3):
        ours, began = datetime.now(UTC), time.perf_counter()
        ((theirs,),) = connection.execute(_SQL["clock"].encode()).fetchall()
        took = time.perf_counter() - began
        trips.append((took, (theirs - ours).total_seconds() - took / 2))
    return Server._make((*row, *min(trips)))


def _workers(held: list[Row] | Unread, beats: list[Row] | Unread) -> list[WorkerSession] | Unread:
    """Say of each who holds a slot what it says itself, if it does: without a slot it is dead."""
    said = {} if isinstance(beats, Unread) else {row[0]: WorkerSession._make(row) for row in beats}
    return _all(
        held,
        lambda row: (
            said.get(f"worker-{row[0]}") or WorkerSession(f"worker-{row[0]}", up_seconds=row[1], machine=row[2])
        ),
    )


def _all(found: list[Row] | Unread, make: Callable[[Row], T]) -> list[T] | Unread:
    return found if isinstance(found, Unread) else [make(row) for row in found]


def _one(found: list[Row] | Unread, make: Callable[[Row], T]) -> T | Unread:
    return found if isinstance(found, Unread) else make(found[0])


def _revision(found: list[Row] | Unread) -> Any:
    """Give the one value there is; tables that are not there have none."""
    if isinstance(found, Unread):
        return None if found.is_absent else found
    return found[0][0] if found else None
