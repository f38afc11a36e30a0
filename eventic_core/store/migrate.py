"""Brings schema `eventic` to the revision the code needs, with Alembic and beside any chain of the user's own.

Owns the migration lock, the version table `eventic.eventic_version` and the offline script. Knows nothing of records,
reads no file but its own migrations and configures no logging.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import InvalidSchemaName, LockNotAvailable, UndefinedTable

from eventic_core.errors import ConfigurationError, MigrationRequired, StoreUnavailable
from eventic_core.settings import normalise_url, safe_url
from eventic_core.store.tables import SCHEMA, TransactionId, metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.script.base import Script

_log = logging.getLogger("eventic")
VERSION_TABLE: Final = "eventic_version"  # a role named eventic would find alembic_version before its own
INDEX_PREFIX: Final = "records_ix_"
"""Names of the declared search indexes, which are no part of the migrations, start so."""

MIGRATION_LOCK: Final = 0x657665_6E746963
"""The advisory lock of all upgrades and downgrades: the bytes of "eventic"."""

_LOCK_POLL_SECONDS: Final = 0.05
_LOCK_SECONDS: Final = 1
"""How long a migration waits for a table that somebody uses, and then leaves it to others, before it tries again."""
_DIRECTORY: Final = Path(__file__).parent / "migrations"
_alembic = threading.Lock()  # alembic.context and alembic.op are one per process; two engines must take turns


@contextmanager
def open_engine(url: str) -> Iterator[sa.Engine]:
    """Give an engine without a pool, for one administrative task; no connection outlives the block.

    Raises:
        ConfigurationError: `url` is not one of Postgres.
    """
    engine = sa.create_engine(normalise_url(url), poolclass=sa.NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def needed_revision() -> str:
    """Name the revision this version of the code needs."""
    return str(_scripts().get_current_head())


def current_revision(connection: sa.Connection) -> str | None:
    """Read the revision of the database, `None` when it was never migrated.

    One query; a transaction of the caller's goes on, also where the version table is missing.
    """
    query = sa.text(f"select version_num from {SCHEMA}.{VERSION_TABLE}")
    try:
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            found: str | None = connection.scalar(query)
    except sa.exc.ProgrammingError as error:
        if isinstance(error.orig, UndefinedTable | InvalidSchemaName):
            return None
        raise
    return found


def require_current(connection: sa.Connection, database_label: str) -> None:
    """Refuse a database that is not at the revision the code needs.

    Args:
        connection: Any connection; a transaction of the caller's goes on.
        database_label: How the message names the database; without a password.

    Raises:
        MigrationRequired: The tables are missing, older or newer.
    """
    found, needed = current_revision(connection), needed_revision()
    if found != needed:
        raise MigrationRequired(found=found, needed=needed, database=database_label)


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the tables up to a revision, in one transaction; safe to call from many processes at once.

    A database at head costs one query and takes no lock.

    Raises:
        MigrationRequired: The database is at a revision this version of the code does not know.
        ConfigurationError: `revision` is unknown or a migration failed; nothing was changed.
        StoreUnavailable: Postgres cannot be reached.
    """
    with explained(engine, "migration"), engine.connect() as connection:
        if revision == "head" and current_revision(connection) == needed_revision():
            return
        _migrate(connection, revision, down=False)


def downgrade(engine: sa.Engine, revision: str) -> None:
    """Bring the tables down to a revision, in one transaction; `base` drops them with all data and the schema.

    Raises:
        MigrationRequired: The database is at a revision this version of the code does not know.
        ConfigurationError: `revision` is unknown or a migration failed; nothing was changed.
        StoreUnavailable: Postgres cannot be reached.
    """
    with explained(engine, "migration"), engine.connect() as connection:
        if current_revision(connection) is not None:
            _migrate(connection, revision, down=True)


def sql_script(url: str, revision: str = "head", *, down: bool = False) -> str:
    """Give the SQL that `upgrade` would run on an empty database, or `downgrade` on one at head.

    Opens no connection. The script is one transaction; it does not take the migration lock.

    Args:
        url: Names the SQL dialect; any Postgres URL.
        revision: The target; `FROM:TO` starts at another revision than these.
        down: Whether to go down.

    Raises:
        ConfigurationError: `url` is not one of Postgres or `revision` is unknown.
    """
    script = io.StringIO()
    config = _config(output=script, url=normalise_url(url))
    run = command.downgrade if down else command.upgrade
    span = f"{needed_revision()}:{revision}" if down and ":" not in revision else revision
    try:
        with _alembic:
            run(config, span, sql=True)
    except CommandError as error:
        raise _unknown(revision) from error
    return script.getvalue()


def autogenerate_differences(connection: sa.Connection) -> list[Any]:
    """Compare schema `eventic` with the declared tables; empty when the migrations are complete.

    Indexes that are declared by record classes are left out.
    """
    options = {
        "include_schemas": True,
        "include_name": _is_ours,
        "compare_type": True,
        "compare_server_default": True,
        "version_table": VERSION_TABLE,
        "version_table_schema": SCHEMA,
    }
    dialect: Any = connection.dialect
    # Without a name for xid8 SQLAlchemy warns and compares nothing.
    dialect.ischema_names = {**dialect.ischema_names, "xid8": TransactionId}
    # Alembic forgets the name of the default schema, which is ours for a user called eventic.
    default, dialect.default_schema_name = dialect.default_schema_name, ""
    try:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))
    finally:
        dialect.default_schema_name = default


@contextmanager
def advisory_lock(connection: sa.Connection, key: int) -> Iterator[None]:
    """Hold a session-level advisory lock; waits as long as another session holds it.

    Polls, because a session that waits inside one statement holds a snapshot, and a concurrent index build waits for
    every older snapshot: three processes could deadlock.
    """
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
        connection.rollback()
        time.sleep(_LOCK_POLL_SECONDS)
    connection.rollback()
    try:
        yield
    finally:
        connection.rollback()
        if not connection.invalidated:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
            connection.rollback()


@contextmanager
def explained(engine: sa.Engine, task: str) -> Iterator[None]:
    """Turn what Postgres refuses during an administrative task into errors of the package."""
    try:
        yield
    except sa.exc.OperationalError as error:
        message = f"The database {_label(engine)} does not answer: {_first_line(error)}. Check the URL and the server."
        raise StoreUnavailable(message) from error
    except sa.exc.SQLAlchemyError as error:
        message = f"The {task} in {_label(engine)} failed and changed nothing: {_first_line(error)}."
        raise ConfigurationError(message) from error


def _migrate(connection: sa.Connection, revision: str, *, down: bool) -> None:
    with advisory_lock(connection, MIGRATION_LOCK):
        found = current_revision(connection)  # again, now that nobody else moves it
        known = {script.revision for script in _revisions()}
        if found is not None and found not in known:
            raise MigrationRequired(found=found, needed=needed_revision(), database=_label(connection.engine))
        while True:
            try:
                _run(connection, revision, command.downgrade if down else command.upgrade)
            except sa.exc.OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable):
                    raise
                _log.warning("somebody holds a table: trying again", extra={"action": "migrate_waits"})
                time.sleep(_LOCK_SECONDS)  # let those go on who wait behind us
            else:
                return


def _run(connection: sa.Connection, revision: str, run: Callable[[Config, str], None]) -> None:
    """Do it in one transaction; whoever writes waits behind a lock that we wait for, so we do not wait for long."""
    with connection.begin(), _alembic:
        connection.exec_driver_sql("set local statement_timeout = 0")
        connection.exec_driver_sql(f"set local lock_timeout = '{_LOCK_SECONDS}s'")
        try:
            run(_config(connection=connection), revision)
        except CommandError as error:
            raise _unknown(revision) from error


def _config(*, connection: sa.Connection | None = None, output: io.StringIO | None = None, url: str = "") -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, url=url, version_table=VERSION_TABLE, schema=SCHEMA)
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _revisions() -> Iterator[Script]:
    yield from _scripts().walk_revisions()


def _unknown(revision: str) -> ConfigurationError:
    known = ", ".join(sorted(script.revision for script in _revisions()))
    return ConfigurationError(f"There is no way to revision {revision!r}. The revisions are {known}, head and base.")


def _label(engine: sa.Engine) -> str:
    return safe_url(engine.url.render_as_string(hide_password=True))  # parameters may hold another one


def _first_line(error: sa.exc.SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return str(cause).strip().partition("\n")[0].rstrip(".")


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:
    if kind == "schema":
        return name == SCHEMA
    if kind == "index":
        return not (name or "").startswith(INDEX_PREFIX)
    return kind != "table" or parents["schema_name"] == SCHEMA
