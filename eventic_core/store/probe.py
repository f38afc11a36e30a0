"""Whether Postgres takes work at this moment, asked on a connection of its own, with little patience.

A connection for each look: it leaves nothing behind, and finds out what a kept one would not, such as a server that
takes no new ones.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import errors as pg

from eventic_core.store.engine import PATIENCE
from eventic_core.store.migrate import needed_revision
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from eventic_core.store.engine import Database

CONNECT_SECONDS: Final = 2
_STATEMENT_SECONDS: Final = 2
_OPTIONS: Final = f"-c statement_timeout={_STATEMENT_SECONDS}s -c work_mem=64kB -c jit=off -c TimeZone=UTC"
_PROBE: Final = statement("probe")
_USED_UP: Final = ("too many clients", "too many connections", "connection slots are reserved")
"""What Postgres says to a new connection when all are in use; the driver gives no code with it."""


class Cause(NamedTuple):
    """Why no work can be done: a word for programs, and a sentence that says what to do."""

    code: str
    message: str


def open_aside(database: Database, *, program: str, options: str) -> psycopg.Connection[Any]:
    """Open an autocommit connection that is no part of this process's work, to be closed by the caller.

    Raises:
        psycopg.OperationalError: Postgres does not answer within two seconds.
    """
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    patience: Any = {**PATIENCE, "connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 5_000}
    return psycopg.connect(url, autocommit=True, application_name=program, options=options, **patience)


def probe(database: Database) -> list[Cause]:
    """Ask once; gives what keeps this process from working, nothing if nothing does. Does not raise."""
    try:
        with open_aside(database, program="eventic-health", options=_OPTIONS) as connection:
            row = connection.execute(_PROBE.encode()).fetchone()
    except (pg.UndefinedTable, pg.InvalidSchemaName):
        return [Cause("tables_missing", "The tables are not there: run `eventic migrate`.")]
    except pg.DiskFull as error:
        return [Cause("disk_full", f"The disk of Postgres is full ({_line(error)}): make room on it.")]
    except pg.InsufficientPrivilege as error:
        return [Cause("not_allowed", f"This role may not read the tables ({_line(error)}): grant it what it lacks.")]
    except (psycopg.Error, OSError) as error:
        if any(words in str(error) for words in _USED_UP):
            return []  # Postgres is there, and what this process holds goes on: to turn all red would make it worse
        return [Cause("postgres_gone", f"Postgres does not answer: {_line(error)}.")]
    assert row is not None
    return list(_causes(*row[:2]))


def _causes(is_read_only: bool, revision: str | None) -> list[Cause]:
    found = []
    if is_read_only:
        found.append(
            Cause("read_only", "Postgres refuses writes: it is a replica, or default_transaction_read_only is on.")
        )
    needed = _needed()
    if revision is None or revision < needed:  # numbers with leading zeros; newer tables also suit older code
        found.append(
            Cause("tables_behind", f"The tables are at revision {revision}, not {needed}: run `eventic migrate`.")
        )
    return found


@cache
def _needed() -> str:
    return needed_revision()


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
