"""Eventic, the facade: connect once per process, then records, units of work and audit through one name.

Owns the one runtime of the process. Does nothing itself: each call is a line to the layer that does it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from eventic_core.errors import ConfigurationError
from eventic_core.records import acting, current_store
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope, required_scope
from eventic_core.records.query import transaction as flushed_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from fastapi import FastAPI
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from eventic_core.records import StoredVersion
    from eventic_core.runtime import Handle, Queue, Retry
    from eventic_core.runtime.dead_letters import DeadLetters
    from eventic_core.runtime.functions import Transaction
    from eventic_core.serving.access import Authenticate
    from eventic_core.settings import Settings
    from eventic_core.store import PostgresStore

P = ParamSpec("P")
R = TypeVar("R")


class _DeadLetters:
    """Gives the dead letters when they are asked for, so that the facade costs no import of the runtime."""

    def __get__(self, _instance: object, _owner: type) -> DeadLetters:
        from eventic_core.runtime.dead_letters import DeadLetters

        return DeadLetters()


class _Connected:
    """Gives the store of the process, if it is connected; the command line asks for it."""

    def __get__(self, _instance: object, _owner: type) -> PostgresStore | None:
        from eventic_core.runtime import process

        return process().store if process().is_connected else None


class Eventic:
    """The package's front door; all members are class methods, there is one runtime in a process."""

    _store = _Connected()
    _declared: ClassVar[dict[str, Any] | None] = None

    acting = staticmethod(acting)
    dead_letters = _DeadLetters()
    """The versions that handlers gave up on: `list`, `get`, `retry` and `discard`."""

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
        cls._init({"name": name, "database_url": database_url, **settings}, default_embedded=True)

    @classmethod
    def _init(cls, values: dict[str, Any], *, default_embedded: bool) -> None:
        from eventic_core.runtime import process

        process().open(values, default_embedded=default_embedded)

    @classmethod
    def launch(cls, *, queues: Iterable[str] | None = None) -> None:
        """Start the workers of this process, connecting first if `init` was not called; again it does nothing.

        Args:
            queues: Names of the queues to work on. Default: those of all record classes defined here, unless they have
                handlers of which none is defined here, and those asked for with `queue`. None at all for `[]`.

        Raises:
            ConfigurationError: No database is named, for an app made by `create_app`.
            StoreUnavailable: Postgres does not answer.
            BlockingInLoop: In a running event loop: use `await asyncio.to_thread(Eventic.launch)`.
        """
        refuse_in_loop("Eventic.launch()", "asyncio.to_thread(Eventic.launch)")
        from eventic_core.runtime import process

        if not process().is_connected:
            cls._init(cls._declared or {}, default_embedded=cls._declared is None)
        process().launch(queues=queues)
        atexit.unregister(cls.shutdown)
        atexit.register(cls.shutdown)

    @classmethod
    def create_app(
        cls,
        name: str = "eventic",
        *,
        db_url: str | None = None,
        queues: Iterable[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        authenticate: Authenticate | None = None,
        **fastapi: Any,
    ) -> FastAPI:
        """Make a FastAPI app that launches when it starts and drains when it stops; nothing is connected before.

        Args:
            name: The application's name, and the app's title.
            db_url: The database, as `init` takes it; `"embedded"` must be said.
            queues: Queues to work on in the serving process, as `launch` takes them; `[]` leaves all to workers.
            settings: Other settings, as `init` takes them.
            authenticate: Who sent a request, for the package's own routes: a function, sync or async, from the
                request to a `Principal` or `None`. Default: bearer tokens of the setting `api_tokens`; without any,
                those routes answer this machine only.
            fastapi: Passed on to FastAPI; its own `lifespan` runs inside.

        Raises:
            ConfigurationError: When it starts: no database is named.
        """
        from eventic_core.serving import create_app

        cls._declared = {"name": name, "database_url": db_url, **(settings or {})}
        start = functools.partial(cls.launch, queues=None if queues is None else tuple(queues))
        return create_app(
            name,
            start=start,
            stop=cls.shutdown,
            is_launched=cls.is_launched,
            authenticate=authenticate,
            **fastapi,
        )

    @classmethod
    def is_launched(cls) -> bool:
        """Tell whether the workers of this process run."""
        from eventic_core.runtime import process

        return process().is_launched

    @classmethod
    def reset(cls) -> None:
        """Delete every record, run, queue, subscription and dead letter of the connected database; for tests.

        Stops the workers first; they can be launched again. What is defined in the process stays defined.

        Raises:
            Conflict: Another process works on the database.
            NotInitialised: `init` was not called.
        """
        from eventic_core.runtime import process

        cls.settings()
        process().stop(drain_seconds=0)
        process().store.erase_everything()

    @classmethod
    def shutdown(cls) -> None:
        """Stop the workers, letting what runs end, and disconnect; harmless when not connected.

        Records cannot be stored or read until the next `init`. Waits `drain_seconds` for running work at most; what
        does not end in time is done by another process, or by this application's next launch.
        """
        from eventic_core.runtime import process

        atexit.unregister(cls.shutdown)
        process().close()

    @classmethod
    def settings(cls) -> Settings:
        """Give the settings in use.

        Raises:
            NotInitialised: `init` was not called.
        """
        from eventic_core.runtime import process

        return process().settings

    @classmethod
    def location(cls) -> str:
        """Say in a line where the data are, without a password."""
        from eventic_core.runtime import process

        return process().location

    @classmethod
    def unit_of_work(cls, *, reason: str | None = None) -> edit_scope:
        """Open a block over several records: one transaction, one version per changed record and flush, all or none.

        Works with `with` and `async with`; joins a block that is open. An exception restores every record.

        Raises:
            VersionConflict: On leaving: somebody wrote one of the records since it was read; nothing is stored.
            BlockingInLoop: `with` in a running event loop.
        """
        return edit_scope(reason=reason, call="unit_of_work()", instead="`async with Eventic.unit_of_work()`")

    # -- durable functions

    @classmethod
    def workflow(
        cls, *, name: str | None = None, max_attempts: int = 100
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function, sync or async, a workflow: repeated after a crash, it goes on where it was.

        A call runs here and now, in this process, which must be launched; `Eventic.queue(...).enqueue` lets a worker
        run it. What its body does is a step on record: record writes and reads, steps, transactions, enqueues. So the
        body must depend on nothing else: the clock and calls to the outside belong into steps.

        Args:
            name: What it is known by in every process; default its qualified name, without the module.
            max_attempts: Executions after which it counts as poison that kills its workers.

        Raises:
            DuplicateRegistration: Another function has the name.
        """
        from eventic_core.runtime import functions, process

        return functions.workflow(process, name, max_attempts)

    @classmethod
    def step(cls, *, name: str | None = None, retry: Retry | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function, sync or async, a step: for calls to the outside.

        In a workflow its result is kept: once done it is not done again, but after a crash in the middle it is. So it
        runs at least once; `Eventic.idempotency_key()` gives it a key that is the same each time. It reads records as
        they are and writes none. Called elsewhere it is an ordinary function; enqueued, a worker runs it.

        Args:
            name: As of `workflow`.
            retry: When it is tried again after an error; default never.
        """
        from eventic_core.runtime import Retry, functions, process

        return functions.step(process, name, retry or Retry())

    @classmethod
    def transaction(cls, *, name: str | None = None, reason: str | None = None) -> Transaction:
        """Run a block or a decorated function, sync or async, in one transaction; transactions join.

        In a workflow a decorated function is one step, whose row commits with what it wrote. Its body may run again
        after a lost connection, before anything is stored. Enqueued, a worker runs it.

        Args:
            name: As of `workflow`.
            reason: Stamped on the versions it writes.

        Example:
            >>> @Eventic.transaction()
            ... def ship(order_id): ...
        """
        from eventic_core.runtime.functions import Transaction

        return Transaction(name=name, reason=reason)

    @classmethod
    def queue(
        cls,
        name: str,
        *,
        concurrency: int | None = None,
        limit: int | None = None,
        rate: tuple[int, float] | None = None,
    ) -> Queue:
        """Give a queue by its name; a record class's is `Story._queue_name`.

        Args:
            name: The queue's. Once it is stored its limits stay as they are.
            concurrency: Pieces of its work that one worker runs at a time; default 16, or the record class's.
            limit: Pieces that all workers together run at a time.
            rate: `(pieces, seconds)` that all workers together start at most.

        Raises:
            Invalid: A name or limit that makes no sense.
        """
        from eventic_core.runtime import Queue, process

        return process().queue(Queue(name, concurrency=concurrency, limit=limit, rate=rate))

    @classmethod
    def handle(cls, run_id: str) -> Handle[Any]:
        """Give the handle of a run by its id, to wait for its result."""
        from eventic_core.runtime import Handle

        return Handle(run_id)

    @classmethod
    def run_id(cls, run_id: str) -> AbstractContextManager[Any]:
        """Give the next workflow called inside the block this id; called again with it, it returns the same result."""
        from eventic_core.runtime import adapter

        return adapter.run_id(run_id)

    @classmethod
    def idempotency_key(cls) -> str | None:
        """Give the running step's key for calls to the outside, the same in all its attempts; `None` elsewhere."""
        from eventic_core.runtime import functions

        return functions.idempotency_key()

    # -- transactions of the caller's

    @classmethod
    def connection(cls) -> Connection:
        """Give the open scope's connection, for SQL of your own in the same transaction.

        What the scope has pending is written first, so that your SQL sees it. Do not commit it. If an inner block
        fails that had asked for it, your SQL in that block is undone with the block.

        Raises:
            ScopeError: No scope is open.
        """
        scope = required_scope("Eventic.connection()")
        connection: Connection = scope.direct_transaction().connection
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
