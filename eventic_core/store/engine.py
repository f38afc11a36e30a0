"""Connections: one SQLAlchemy engine, psycopg cursors on it for the fixed statements, and waiting for a lost server.

Owns the pool, reconnecting and the translation of driver errors. Knows no table.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import random
import secrets
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg

from eventic_core.errors import ConfigurationError, StoreUnavailable
from eventic_core.settings import safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventic_core.settings import Settings

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_DEADLOCK_ATTEMPTS = 5
_KEPT_ROWS = 1000  # results a kept cursor may hold on to

PATIENCE: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""For libpq: a server that is cut off is noticed in seconds, not in hours."""
_LONGEST_NAME = 48
"""Of an application in its sessions' name, which has 63 bytes and ends in a space and the token."""

DEMOTED = pg.ReadOnlySqlTransaction
"""What a server says that takes no writes: a replica, or a primary that is none any more."""
LOST = (psycopg.OperationalError, psycopg.InterfaceError, sa.exc.OperationalError, sa.exc.InterfaceError, DEMOTED)
_REFUSED = (pg.InvalidPassword, pg.InvalidAuthorizationSpecification, pg.InvalidCatalogName, pg.QueryCanceled, DEMOTED)
TOO_LARGE = (pg.ProgramLimitExceeded, pg.StatementTooComplex)
"""Errors of the values, which the driver counts among those of a server that is away."""
RETRIED = (pg.DeadlockDetected, pg.SerializationFailure)
_CONTENDED = (*RETRIED, pg.LockNotAvailable)


def is_contended(error: Exception) -> bool:
    """Tell whether somebody else was at the same rows, as DBOS's statements come to it: nothing was done then."""
    return isinstance(error, sa.exc.DBAPIError) and isinstance(error.orig, _CONTENDED)


def create_engine(settings: Settings, url: str) -> sa.Engine:
    """Make the engine: autocommit unless a transaction is opened, so that one statement is one round trip."""
    options = f"{session_options(url)} -c TimeZone=UTC"
    if settings.statement_timeout_seconds is not None:
        options += f" -c statement_timeout={int(settings.statement_timeout_seconds * 1000)}"
    engine = sa.create_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_size,
        pool_use_lifo=True,
        pool_reset_on_return=None,  # every checkout below ends its own transaction
        isolation_level="AUTOCOMMIT",
        use_native_hstore=False,
        hide_parameters=True,  # a statement that failed is logged without what it was given
        connect_args={"options": options, **PATIENCE},
    )
    leave_demoted(engine)
    return engine


def leave_demoted(engine: sa.Engine) -> None:
    """Have an engine close its connections to a server that takes no writes any more, as those to one that is gone."""

    def look(context: sa.ExceptionContext) -> None:
        if isinstance(context.original_exception, DEMOTED):
            context.is_disconnect = True

    sa.event.listen(engine, "handle_error", look)


def session_options(url: str) -> str:
    """Give the options of a session: the user's own in the URL, and the isolation that every statement counts on."""
    own = sa.make_url(url).query.get("options", "")
    return f"{own if isinstance(own, str) else ' '.join(own)} -c default_transaction_isolation=read\\ committed".strip()


class Database:
    """The engine, and how statements are run on it so that a restarted server goes unnoticed."""

    def __init__(self, engine: sa.Engine, *, name: str, pool_size: int, reconnect_seconds: float) -> None:
        self.engine = engine
        self._name = name.encode("ascii", "replace")[:_LONGEST_NAME].decode()
        self.token = new_token()
        sa.event.listen(engine, "do_connect", self._name_session)
        # Taken from the pool and kept with a cursor each: a checkout for every statement costs a tenth of it.
        self._kept: collections.deque[sa.PoolProxiedConnection] = collections.deque()
        self._keep = max(1, pool_size // 2)
        self._reconnect_seconds = reconnect_seconds
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=functools.partial(_forget_connections, weakref.ref(self)))

    @property
    def session_name(self) -> str:
        """The name of this process's sessions: the application's, and a token that no other process has."""
        return f"{self._name} {self.token}"

    def _name_session(self, _dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["application_name"] = self.session_name

    def label(self) -> str:
        """Name the database in a message, without its password."""
        return safe_url(self.engine.url.render_as_string(hide_password=True))

    def apart(self) -> psycopg.Connection[Any]:
        """Open an autocommit connection outside the pool, to be closed by the caller."""
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        options: Any = {**PATIENCE, "application_name": self.session_name}
        return psycopg.connect(url, autocommit=True, **options)

    def fetch(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run one reading statement and give its rows; runs it again on a new connection if the server is lost."""
        return self.persist(lambda: self.run(sql, parameters))

    def run(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement in autocommit and give its rows; a broken connection does not come back."""
        try:
            lent = self._kept.pop()
        except IndexError:
            lent = self.engine.raw_connection()
        connection: Any = lent.driver_connection
        try:
            cursor = lent.info.get("eventic")
            if cursor is None:
                cursor = lent.info["eventic"] = connection.cursor(binary=True)
            rows: list[tuple[Any, ...]] = cursor.execute(sql, parameters).fetchall()
        except BaseException as error:
            hide_values(error)
            if connection.closed or connection.broken or isinstance(error, DEMOTED):
                lent.invalidate(error if isinstance(error, psycopg.Error) else None)
            lent.close()
            raise
        if len(rows) > _KEPT_ROWS:
            del lent.info["eventic"]
        if len(self._kept) < self._keep and not self._is_used_up():
            self._kept.append(lent)
        else:
            lent.close()
        return rows

    def _is_used_up(self) -> bool:
        """Tell whether the pool has lent all it may: then somebody may wait for what is given back to it."""
        pool = self.engine.pool
        return isinstance(pool, sa.QueuePool) and pool.overflow() >= pool._max_overflow  # noqa: SLF001

    def connect(self) -> sa.Connection:
        """Take a connection for a transaction; one kept for single statements goes back to the pool first."""
        with contextlib.suppress(IndexError):
            self._kept.pop().close()
        return self.engine.connect().execution_options(isolation_level="READ COMMITTED")

    def dispose(self) -> None:
        """Close all connections."""
        with contextlib.suppress(IndexError):
            while True:
                self._kept.pop().close()
        self.engine.dispose()

    def persist(self, work: Callable[[], T], recover: Callable[[], T | None] | None = None) -> T:
        """Do `work`, again after a lost connection or a deadlock, until the server was away too long.

        Args:
            work: One transaction; must be safe to repeat when it did not commit.
            recover: Asked before a repetition whether the lost attempt did commit; its result then is the answer.

        Raises:
            StoreUnavailable: The server did not come back in `reconnect_seconds`, or refuses the connection.
        """
        deadline: float | None = None
        pause, deadlocks = _FIRST_PAUSE_SECONDS, 0
        lost = False
        while True:
            try:
                if lost and recover is not None and (done := recover()) is not None:
                    return done
                return work()
            except (*LOST, sa.exc.TimeoutError) as error:
                cause = getattr(error, "orig", None) or error
                if isinstance(cause, TOO_LARGE):
                    raise
                if isinstance(cause, RETRIED):
                    deadlocks += 1
                    if deadlocks >= _DEADLOCK_ATTEMPTS:
                        raise self.unavailable(error) from error
                else:
                    lost = True
                    deadline = deadline or time.monotonic() + self._reconnect_seconds
                    if isinstance(cause, _REFUSED) or time.monotonic() >= deadline:
                        raise self.unavailable(error) from error
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """Make the error for a server that does not answer, from the driver's."""
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, DEMOTED):
            return StoreUnavailable(
                f"Postgres at {self.label()} takes no writes: {first_line}. It is a replica, or was made read-only; "
                "write to the primary. Nothing was stored."
            )
        return StoreUnavailable(
            f"Postgres at {self.label()} does not answer: {first_line}. Check that it runs and accepts this user; "
            "the call was not completed."
        )


def _forget_connections(reference: weakref.ref[Database]) -> None:
    """Give a forked child connections of its own: on the parent's, the two would read each other's answers."""
    database = reference()
    if database is not None:
        database.token = new_token()
        database._kept = collections.deque()  # noqa: SLF001 - part of the class, outside it so that it holds no reference
        database.engine.dispose(close=False)


def hide_values(error: BaseException) -> None:
    """Take from a driver's error what Postgres adds of rows and keys, which are the user's; `diag` keeps it."""
    if isinstance(error, psycopg.Error) and (message := error.diag.message_primary):
        hint = error.diag.message_hint
        error.args = (f"{message} ({hint})" if hint else message, *error.args[1:])


def new_token() -> str:
    """Make a token by which a process's sessions are told from all others."""
    return secrets.token_hex(6)


def check_version(connection: sa.Connection) -> None:
    """Refuse a server that is too old.

    Raises:
        ConfigurationError: Older than Postgres 14.
    """
    number = int(connection.exec_driver_sql("show server_version_num").scalar_one())
    if number < 140000:  # noqa: PLR2004 - Postgres' own numbering
        message = f"Postgres {number // 10000} is too old: eventic_core needs 14 or newer."
        raise ConfigurationError(message)
