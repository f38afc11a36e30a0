"""The database of units of work: connects the one runtime of the process, and gives sessions for the user's own SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.errors import ConfigurationError
from eventic_core.runtime.process import process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventic_core.store import PostgresStore
    from eventic_core.store.sessions import Session, sessionmaker


class DatabaseConfig:
    """Where units of work keep what they write; making one connects the process, as `Eventic.init` does.

    A process has one database: the same one again is fine, also after `Eventic.init`, whose settings then stay.

    Args:
        url: A Postgres URL, or `"embedded"`. Default: the database that is connected; else EVENTIC_DATABASE_URL,
            DATABASE_URL and so on, as `Eventic.init` looks for it.
        pool_size: Connections kept; there may be twice as many at a time.
        max_overflow: Taken for the shape's sake: how far the pool grows follows from `pool_size`.
        engine_kwargs: Other settings, as `Eventic.init` takes them, such as `statement_timeout_seconds`.

    Raises:
        ConfigurationError: A setting is bad, or another database is connected already.
        StoreUnavailable: Postgres does not answer.
        MigrationRequired: The tables are at another revision, and `auto_migrate` is off.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        pool_size: int = 5,
        max_overflow: int = 10,
        engine_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if max_overflow < 0:
            message = f"DatabaseConfig(max_overflow={max_overflow}): a pool cannot grow by less than nothing."
            raise ConfigurationError(message)
        self._values = {**(engine_kwargs or {}), "database_url": url, "pool_size": pool_size}
        self._store: PostgresStore | None = None
        self._opened = False
        self.connect()

    def connect(self) -> PostgresStore:
        """Connect again after `dispose_engine`; nothing happens while connected. Raises what the constructor does."""
        runtime = process()
        if runtime.is_connected and (self._values["database_url"] is None or runtime.store is self._store):
            self._store = runtime.store
        else:
            self._opened = runtime.open(self._values, default_embedded=True)
            self._store = runtime.store
        return self._store

    @property
    def SessionLocal(self) -> sessionmaker[Session]:  # noqa: N802 - the name users know
        """What makes sessions on the connections of the process."""
        from eventic_core.store.sessions import session_factory

        return session_factory(self.connect())

    def get_session(self) -> Session:
        """Give a new SQLAlchemy session, to be closed by the caller.

        Its transaction is its own; `with Eventic.using(session):` lets records write in it.
        """
        return self.SessionLocal()

    def dispose_engine(self) -> None:
        """Close the connections; harmless when repeated, and the next use connects again.

        Disconnects the process if this object connected it and no workers run; else only idle connections are closed.
        """
        runtime = process()
        if self._store is None or not runtime.is_connected or runtime.store is not self._store:
            return
        if self._opened and not runtime.is_launched:
            runtime.close()
        else:
            self._store.database.dispose()
