"""The runtime of this process, as the rest finds it: the store it is connected to, and its worker once launched."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from eventic_core.errors import NotAllowed, NotInitialised, NotLaunched
from eventic_core.records.port import install_background
from eventic_core.records.scope import in_scope

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


class Process:
    """The one runtime; `connect` gives it a store, `launch` starts workers of it."""

    def __init__(self) -> None:
        self._store: PostgresStore | None = None
        self._settings: Settings | None = None
        self._url = ""
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

    def connect(self, store: PostgresStore, settings: Settings, url: str) -> None:
        """Use a store."""
        self._store, self._settings, self._url = store, settings, url
        install_background(self)

    def disconnect(self) -> None:
        """Forget the store; workers must have been stopped."""
        self._store = self._settings = None
        install_background(None)

    # -- queues

    def queue(self, queue: Queue) -> Queue:
        """Note a queue that this process serves when it is launched."""
        self._queues[queue.name] = queue
        return queue

    def ensure_queue(self, row: QueueRow) -> None:
        """Make sure DBOS knows a queue, and has its tables."""
        try:
            self.store.work.ensure_queue(row)
        except NotLaunched:
            from eventic_core.runtime import adapter

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
