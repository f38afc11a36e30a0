"""The store: the only package with SQL. Tables, migrations, the record store and the embedded Postgres."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eventic_core.errors import ConfigurationError, EvolutionError
from eventic_core.records.evolution import unreachable
from eventic_core.records.record_class import registered
from eventic_core.settings import EMBEDDED
from eventic_core.store import migrate
from eventic_core.store.engine import Database, check_version, create_engine
from eventic_core.store.postgres import PostgresStore

if TYPE_CHECKING:
    from eventic_core.settings import Settings

_log = logging.getLogger("eventic")

__all__ = ["PostgresStore", "check_evolution", "connect", "database_url", "disconnect"]


def database_url(settings: Settings, *, default_embedded: bool = True) -> tuple[str, str]:
    """Find the database, starting the embedded server if it is the one.

    Returns:
        Its URL for SQLAlchemy, and a line that says which it is and where it was named.

    Raises:
        ConfigurationError: None is named and `default_embedded` is false, or the embedded server cannot run here.
        StoreUnavailable: The embedded server did not start.
    """
    named = settings.database_url.get_secret_value() if settings.database_url else None
    if named is None and not default_embedded:
        message = "No database is named: set EVENTIC_DATABASE_URL, or say EVENTIC_DATABASE_URL=embedded."
        raise ConfigurationError(message)
    if named is not None and named != EMBEDDED:
        return named, f"named by {settings.database_source}"
    from eventic_core.store.embedded import start_embedded

    server = start_embedded(settings.embedded_directory)
    return server.url.replace(
        "postgresql://", "postgresql+psycopg://", 1
    ), f"embedded Postgres, data in {server.data_dir}"


def connect(settings: Settings, url: str) -> PostgresStore:
    """Connect to a database and bring its tables up to date.

    Raises:
        StoreUnavailable: It does not answer.
        MigrationRequired: Its tables are at another revision and `auto_migrate` is off, or they are newer.
        ConfigurationError: The server is older than Postgres 14.
        EvolutionError: Versions of a defined class are stored that no chain of upcasters reaches.
    """
    database = Database(
        create_engine(settings, url),
        name=settings.name,
        pool_size=settings.pool_size,
        reconnect_seconds=settings.reconnect_seconds,
    )

    def prepare() -> None:
        with migrate.open_engine(url) as admin:  # not the store's: that is in autocommit, a migration must not be
            with admin.connect() as connection:
                check_version(connection)
                if not settings.auto_migrate:
                    migrate.require_current(connection, database.label())
            if settings.auto_migrate:
                migrate.upgrade(admin)

    try:
        database.persist(prepare)
        store = PostgresStore(database, settings.app_version, max_record_bytes=settings.max_record_bytes)
        store.handlers.refresh()
        check_evolution(store)
        if store.is_feed_ahead():
            _log.warning(
                "The change feed of %s stands still: its transaction ids are ahead of the server's, as after restoring "
                "a dump into a new cluster. ARCHITECTURE.md, Known limits, says what to do.",
                database.label(),
                extra={"action": "feed_ahead"},
            )
    except BaseException:
        database.dispose()
        raise
    return store


def check_evolution(store: PostgresStore) -> None:
    """Refuse to go on when stored versions of a defined class cannot be read.

    Raises:
        EvolutionError: Names each class, the stored schema version and what is missing.
    """
    definitions = {cls.__eventic__.class_type: cls.__eventic__ for cls in registered()}
    problems = []
    for class_type, stored in store.schema_versions(sorted(definitions)):
        definition = definitions[class_type]
        if problem := unreachable(definition.schema_version, definition.upcasters, stored):
            problems.append(f"{class_type} has versions of schema version {stored}: {problem}")
    if problems:
        message = f"Stored data cannot be read. {'; '.join(problems)}."
        raise EvolutionError(message)


def disconnect(store: PostgresStore) -> None:
    """Close the store's connections."""
    store.database.dispose()
