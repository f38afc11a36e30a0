"""Eventic, the facade: connect once per process, then records, units of work and audit through one name.

Owns the one runtime of the process. Does nothing itself: each call is a line to the layer that does it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from eventic_core.errors import ConfigurationError, NotInitialised
from eventic_core.records import acting, allow_blocking, current_store, install
from eventic_core.records.query import transaction as flushed_transaction
from eventic_core.records.scope import edit_scope, required_scope
from eventic_core.settings import Settings, slug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from eventic_core.records import StoredVersion
    from eventic_core.store import PostgresStore

_log = logging.getLogger("eventic")
_Function = TypeVar("_Function", bound="Callable[..., Any]")


class _Transaction(edit_scope):
    """A unit of work that also decorates functions, sync and async."""

    def __call__(self, function: _Function) -> _Function:
        name = getattr(function, "__name__", None)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                async with edit_scope(default_reason=name):
                    return await function(*args, **kwargs)

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with edit_scope(default_reason=name, call=f"{name}()", instead="an async function"):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


class Eventic:
    """The package's front door; all members are class methods, there is one runtime in a process."""

    _settings: ClassVar[Settings | None] = None
    _store: ClassVar[PostgresStore | None] = None
    _url: ClassVar[str | None] = None
    _where: ClassVar[str] = "not connected"

    acting = staticmethod(acting)

    def __init__(self) -> None:
        message = "Eventic is not instantiated: call Eventic.init(...)."
        raise ConfigurationError(message)

    @classmethod
    def init(cls, *, name: str = "eventic", database_url: str | None = None, **settings: Any) -> None:
        """Connect to the database, bring its tables up to date and make records use it.

        Again with the same database it does nothing.

        Args:
            name: The application's name; one that DBOS refuses is slugged.
            database_url: A Postgres URL, or `"embedded"`. Default: EVENTIC_DATABASE_URL, DATABASE_URL,
                DBOS_DATABASE_URL, dbos-config.yaml, and else the embedded Postgres under `.eventic/`.
            settings: Any other setting, such as `auto_migrate=False`, `blocking_in_loop=True` or `pool_size=20`.

        Raises:
            ConfigurationError: A setting is bad, or another database is connected already.
            StoreUnavailable: Postgres does not answer.
            MigrationRequired: The tables are at another revision and `auto_migrate` is off.
            EvolutionError: Stored versions of a defined class cannot be read.
        """
        wanted = Settings(name=slug(name), database_url=database_url, **settings)
        from eventic_core import store

        url, where = store.database_url(wanted)
        if cls._store is not None:
            cls._refuse_other(url)
            return
        cls._store = store.connect(wanted, url)
        cls._settings, cls._url, cls._where = wanted, url, where
        install(cls._store)
        allow_blocking(allowed=wanted.blocking_in_loop)
        _log.info("connected: %s", where, extra={"action": "connected"})

    @classmethod
    def _refuse_other(cls, url: str) -> None:
        if url != cls._url:
            message = (
                f"Eventic is connected to another database already ({cls._where}). "
                "Call Eventic.shutdown() first, or use one database."
            )
            raise ConfigurationError(message)

    @classmethod
    def shutdown(cls) -> None:
        """Disconnect; harmless when not connected. Records cannot be stored or read until the next `init`."""
        from eventic_core import store

        connected, cls._store, cls._settings, cls._url, cls._where = cls._store, None, None, None, "not connected"
        install(None)
        allow_blocking(allowed=False)
        if connected is not None:
            store.disconnect(connected)

    @classmethod
    def settings(cls) -> Settings:
        """Give the settings in use.

        Raises:
            NotInitialised: `init` was not called.
        """
        if cls._settings is None:
            message = "Nothing is connected: call Eventic.init(name=..., database_url=...) first."
            raise NotInitialised(message)
        return cls._settings

    @classmethod
    def location(cls) -> str:
        """Say in a line where the data are, without a password."""
        return cls._where

    @classmethod
    def unit_of_work(cls, *, reason: str | None = None) -> edit_scope:
        """Open a block over several records: one transaction, one version per changed record and flush, all or none.

        Works with `with` and `async with`; joins a block that is open. An exception restores every record.

        Raises:
            VersionConflict: On leaving: somebody wrote one of the records since it was read; nothing is stored.
            BlockingInLoop: `with` in a running event loop.
        """
        return edit_scope(reason=reason, call="unit_of_work()", instead="`async with Eventic.unit_of_work()`")

    @classmethod
    def transaction(cls, *, reason: str | None = None) -> _Transaction:
        """Run a block or a decorated function, sync or async, in one transaction; transactions join.

        Example:
            >>> @Eventic.transaction()
            ... def ship(order_id): ...
        """
        return _Transaction(reason=reason, call="transaction()", instead="`async with Eventic.transaction()`")

    @classmethod
    def connection(cls) -> Connection:
        """Give the open scope's connection, for SQL of your own in the same transaction.

        What the scope has pending is written first, so that your SQL sees it. Do not commit it.

        Raises:
            ScopeError: No scope is open.
        """
        scope = required_scope("Eventic.connection()")
        flushed_transaction()
        connection: Connection = scope.transaction.connection
        return connection

    @classmethod
    @contextlib.contextmanager
    def using(cls, session: Session | Connection) -> Iterator[None]:
        """Write records in a transaction of the caller's, who commits it or rolls it back.

        What the block changed is written on leaving it. A rollback restores its records in memory too; a rollback to
        a savepoint of the caller's does not: call `refresh()` on them.

        Raises:
            ScopeError: A scope is open already.
            Invalid: The session is in autocommit or does not speak to Postgres through psycopg.
        """
        with edit_scope(
            call="using()", instead="asyncio.to_thread", open_transaction=lambda: current_store().join(session)
        ) as scope:
            _ = scope.transaction
            yield

    @classmethod
    def written_by(cls, workflow_id: str) -> list[StoredVersion]:
        """List every version a run wrote, of whatever class, in the order of writing."""
        return current_store().written_by(workflow_id, flushed_transaction())
