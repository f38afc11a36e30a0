"""The runtime of this process, as the rest finds it: the store it is connected to, and its worker once launched."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from eventic_core.errors import ConfigurationError, NotAllowed, NotInitialised, NotLaunched
from eventic_core.records.blocking import allow_blocking
from eventic_core.records.editing import current_scope, in_scope
from eventic_core.records.port import install, install_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventic_core.records.port import Work
    from eventic_core.runtime.calls import Call
    from eventic_core.runtime.functions import Function
    from eventic_core.runtime.queues import Queue
    from eventic_core.runtime.worker import Worker
    from eventic_core.settings import Settings
    from eventic_core.store import PostgresStore
    from eventic_core.store.work import QueueRow

_log = logging.getLogger("eventic")
_NOWHERE = "not connected"


class Process:
    """The one runtime; `open` connects it to a database, `launch` starts workers of it, `close` ends both."""

    def __init__(self) -> None:
        self._store: PostgresStore | None = None
        self._settings: Settings | None = None
        self._url = ""
        self._where = _NOWHERE
        self._worker: Worker | None = None
        self._queues: dict[str, Queue] = {}
        self._lock = threading.RLock()

    # -- what it is connected to

    @property
    def store(self) -> PostgresStore:
        """The store.

        Raises:
            NotInitialised: `Eventic.init` was not called.
        """
        if self._store is None:
            message = "No database is connected: call Eventic.init(name=..., database_url=...) first."
            raise NotInitialised(message)
        return self._store

    @property
    def is_connected(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    @property
    def worker(self) -> Worker | None:
        """The worker, once launched."""
        return self._worker

    @property
    def is_launched(self) -> bool:
        """Whether workers run in this process."""
        return self._worker is not None

    @property
    def settings(self) -> Settings:
        """The settings in use.

        Raises:
            NotInitialised: `Eventic.init` was not called.
        """
        if self._settings is None:
            message = "Nothing is connected: call Eventic.init(name=..., database_url=...) first."
            raise NotInitialised(message)
        return self._settings

    @property
    def location(self) -> str:
        """Where the data are, in a line and without a password."""
        return self._where

    def open(self, values: dict[str, Any], *, default_embedded: bool) -> bool:
        """Connect to the database, bring its tables up to date and make records use it.

        Args:
            values: Settings by name, as `Eventic.init` takes them.
            default_embedded: Whether the embedded server is used when no database is named anywhere.

        Returns:
            Whether it was this call that connected; the same database again changes nothing.

        Raises:
            ConfigurationError: A setting is bad, none names a database, or another one is connected already.
            StoreUnavailable: Postgres does not answer.
            MigrationRequired: The tables are at another revision and `auto_migrate` is off.
            EvolutionError: Stored versions of a defined class cannot be read.
        """
        from eventic_core import store
        from eventic_core.settings import Settings, slug

        wanted = Settings(**{**values, "name": slug(values.get("name") or "eventic")})
        if wanted.log_level is not None:
            _log.setLevel(wanted.log_level)
        with self._lock:
            url, where = store.database_url(wanted, default_embedded=default_embedded)
            if self._store is not None:
                self._refuse_other(url)
                return False
            self._store = store.connect(wanted, url)
            self._settings, self._url, self._where = wanted, url, where
            install(self._store)
            install_background(self)
            allow_blocking(allowed=wanted.blocking_in_loop)
        _log.info("connected: %s", where, extra={"action": "connected"})
        return True

    def _refuse_other(self, url: str) -> None:
        if url != self._url:
            message = (
                f"Eventic is connected to another database already ({self._where}). "
                "Call Eventic.shutdown() first, or use one database."
            )
            raise ConfigurationError(message)

    def close(self) -> None:
        """Stop the workers, letting what runs end, and disconnect; harmless when not connected."""
        from eventic_core import store

        if self._settings is not None:
            self.stop(drain_seconds=self._settings.drain_seconds)
        with self._lock:
            connected, self._store, self._settings = self._store, None, None
            self._url, self._where = "", _NOWHERE
            install_background(None)
            install(None)
            allow_blocking(allowed=False)
        if connected is not None:
            store.disconnect(connected)

    # -- queues

    def queue(self, queue: Queue) -> Queue:
        """Note a queue that this process serves when it is launched."""
        self._queues[queue.name] = queue
        return queue

    def ensure_queue(self, row: QueueRow) -> None:
        """Make sure DBOS knows a queue, and has its tables.

        Raises:
            NotLaunched: It has none yet, and a transaction is open: their indexes would wait for its end.
        """
        try:
            self.store.work.ensure_queue(row)
        except NotLaunched as error:
            from eventic_core.runtime import adapter

            scope = current_scope()
            if scope is not None and scope.read_transaction() is not None:
                message = (
                    "DBOS's tables are not there yet and cannot be made while a transaction is open. Run "
                    "`eventic migrate`, or call Eventic.launch() or enqueue something outside of a transaction, once."
                )
                raise NotLaunched(message) from error
            adapter.migrate(self._url)
            self.store.work.ensure_queue(row)

    def later(self, record: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work:
        """Make the work that calls a method later; see the records' port."""
        from eventic_core.runtime.queues import later_work

        row, work = later_work(record, method, args, kwargs)
        self.ensure_queue(row)
        return work

    # -- launching

    def launch(self, *, queues: Iterable[str] | None = None) -> None:
        """Start workers for the queues named, or for all this process knows everything about."""
        with self._lock:
            if self._worker is None:
                assert self._settings is not None
                chosen = None if queues is None else frozenset(queues)
                from eventic_core.runtime.worker import Worker

                worker = Worker(self.store, self._settings, self._url, self._queues, chosen)
                worker.start()
                self._worker = worker

    def stop(self, *, drain_seconds: float) -> None:
        """Stop the workers, waiting for what runs as long as said."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(drain_seconds=drain_seconds)

    # -- what the decorators ask for

    def defined(self, known: Function) -> None:
        """Hear of a workflow that is defined."""
        if self._worker is not None:
            self._worker.register(known)

    def start(self, known: Function) -> Callable[[Call], Any]:
        """Give what runs a workflow here and now.

        Raises:
            NotLaunched: `Eventic.launch` was not called.
            NotAllowed: A scope is open, which the workflow would write into.
        """
        if self._worker is None or known.start is None:
            message = f"{known.name}() is a workflow: call Eventic.launch() before running it."
            raise NotLaunched(message)
        if in_scope():
            message = (
                f"{known.name}() is a workflow and cannot be part of a transaction: enqueue it on a queue instead."
            )
            raise NotAllowed(message)
        return known.start

    @staticmethod
    def run_step(name: str, options: dict[str, Any], function: Callable[[], Any]) -> Any:
        """Run a function as a step of the run."""
        from eventic_core.runtime import adapter

        return adapter.run_step(name, options, function)

    @staticmethod
    async def run_step_async(name: str, options: dict[str, Any], function: Callable[[], Any]) -> Any:
        """Run an async function as a step of the run."""
        from eventic_core.runtime import adapter

        return await adapter.run_step_async(name, options, function)

    @staticmethod
    def step_number() -> int:
        """Give the number of the running step."""
        from eventic_core.runtime import adapter

        return adapter.step_number()


_process = Process()


def process() -> Process:
    """Give the runtime of this process."""
    return _process
