"""The runtime of this process: what is launched, which queues it serves, and how the rest finds it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from eventic_core.errors import NotAllowed, NotInitialised, NotLaunched
from eventic_core.records.port import install_background
from eventic_core.records.record_class import registered
from eventic_core.records.scope import in_scope
from eventic_core.runtime import functions, handlers
from eventic_core.runtime.calls import LATER, RUN, Call
from eventic_core.store.handlers import HANDLE, HANDLE_MANY, queue_of
from eventic_core.store.work import DEFAULT_PER_WORKER, DIRECT, QueueRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventic_core.records.port import Work
    from eventic_core.runtime.functions import Function
    from eventic_core.runtime.journal import Journal
    from eventic_core.runtime.queues import Queue
    from eventic_core.settings import Settings
    from eventic_core.store import PostgresStore

_log = logging.getLogger("eventic")
_REFRESH_SECONDS = 1.0


class Process:
    """The one runtime; `connect` gives it a store, `launch` starts workers of it."""

    def __init__(self) -> None:
        self._store: PostgresStore | None = None
        self._settings: Settings | None = None
        self._url = ""
        self._launched: _Launched | None = None
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
    def is_launched(self) -> bool:
        """Whether workers run in this process."""
        return self._launched is not None

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
            if self._launched is None:
                assert self._settings is not None
                chosen = None if queues is None else frozenset(queues)
                launched = _Launched(self.store, self._settings, self._url, self._queues, chosen)
                launched.start()
                self._launched = launched

    def stop(self, *, drain_seconds: float) -> None:
        """Stop the workers, waiting for what runs as long as said."""
        with self._lock:
            launched, self._launched = self._launched, None
        if launched is not None:
            launched.stop(drain_seconds=drain_seconds)

    # -- what the decorators ask for

    def defined(self, known: Function) -> None:
        """Hear of a workflow that is defined."""
        if self._launched is not None:
            self._launched.register(known)

    def start(self, known: Function) -> Callable[[Call], Any]:
        """Give what runs a workflow here and now.

        Raises:
            NotLaunched: `Eventic.launch` was not called.
            NotAllowed: A scope is open, which the workflow would write into.
        """
        if self._launched is None or known.start is None:
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


class _Launched:
    """DBOS, the dispatcher, the executor and the slot of a launched process."""

    def __init__(
        self,
        store: PostgresStore,
        settings: Settings,
        url: str,
        queues: dict[str, Queue],
        chosen: frozenset[str] | None,
    ) -> None:
        from eventic_core.runtime import adapter
        from eventic_core.runtime.dispatcher import Dispatcher
        from eventic_core.runtime.executor import Executor
        from eventic_core.runtime.presence import Presence

        self._adapter = adapter
        self._store = store
        self._settings = settings
        self._url = url
        self._declared = queues
        self._chosen = chosen
        self._served: tuple[QueueRow, ...] = ()
        self._served_at = 0.0
        self._datasource: Any = None
        self.executor = Executor(store, adapter)
        self.dispatcher = Dispatcher(store, self.executor, self.served, adapter.claim)
        self.presence = Presence(store, self.dispatcher.wake)

    def start(self) -> None:
        """Launch DBOS under the slot's name, subscribe the handlers, and begin to dispatch."""
        slot = self.presence.start()
        try:
            self._adapter.migrate_if_asked(self._settings, self._url)
            self._store.work.take_over([slot])  # of an earlier life, under whatever name
            if self._settings.checkpoints == "datasource":
                self._datasource = self._adapter.open_datasource(self._url, pool_size=self._settings.pool_size)
            for known in functions.workflows():
                self.register(known)
            for name in (HANDLE, HANDLE_MANY, LATER, RUN):
                self._adapter.register_workflow(name, _not_ours, max_attempts=functions.MAX_ATTEMPTS)
            self._adapter.launch(self._settings, self._url, executor_id=slot, own_dispatch=True)
            self._subscribe()
        except BaseException:
            self.presence.stop()
            self._adapter.destroy(drain_seconds=0)
            raise
        self._store.work.serves = lambda queue: any(row.name == queue for row in self._served)
        self._store.work.enqueued = lambda _queues: self.dispatcher.wake()
        self.dispatcher.start()
        _log.info("launched as %s", slot, extra={"action": "launched"})

    def register(self, known: Function) -> None:
        """Tell DBOS of a workflow."""
        known.body = functions.entry(known, self._journal, self.executor.workflow_ended)
        known.start = self._adapter.register_workflow(known.name, known.body, max_attempts=known.max_attempts)

    def _journal(self) -> Journal:
        from eventic_core.runtime.journal import StatementJournal

        position = self._adapter.position()
        assert position is not None
        if self._datasource is not None:
            from eventic_core.runtime.datasource import DatasourceJournal

            journal: Journal = DatasourceJournal(self._store, position, self._adapter.lost)
            return journal
        return StatementJournal(self._store, position, self._adapter.lost)

    # -- handlers and queues

    def _subscribe(self) -> None:
        found = list(handlers.defined())
        wanted = [entry for handler in found for entry in handler.subscriptions]
        self._store.handlers.subscribe(wanted, backfill=frozenset(h.name for h in found if h.backfill))
        for handler in found:
            for entry in handler.subscriptions:
                self._store.work.ensure_queue(queue_of(entry.class_type))
        behind = {entry.subscription.handler for entry in self._store.handlers.all if not entry.caught_up}
        own = behind & {handler.name for handler in found}
        if own:
            from eventic_core.runtime.catching_up import catch_up

            thread = threading.Thread(
                target=catch_up, args=(self._store, sorted(own)), name="eventic-catch-up", daemon=True
            )
            thread.start()

    def served(self) -> tuple[QueueRow, ...]:
        """Give the queues to claim from: those chosen, or those all of whose work this process knows."""
        now = time.monotonic()
        if now - self._served_at > _REFRESH_SECONDS:
            self._store.handlers.refresh()
            self._served, self._served_at = tuple(self._find_served()), now
        return self._served

    def _find_served(self) -> Iterable[QueueRow]:
        known = {handler.name for handler in handlers.defined()}
        rows: dict[str, QueueRow] = {DIRECT: QueueRow(DIRECT, per_worker=DEFAULT_PER_WORKER)}
        for cls in registered():
            class_type = cls.__eventic__.class_type
            if class_type and all(entry.handler in known for entry in self._store.handlers.of_class(class_type)):
                row = queue_of(class_type)
                rows[row.name] = row
        for queue in self._declared.values():
            if not queue.name.startswith("queue_") or queue.name in rows:
                rows |= {row.name: row for row in queue.rows()}
        if self._chosen is not None:
            from eventic_core.runtime.queues import Queue

            chosen = [self._declared.get(name) or Queue(name) for name in sorted(self._chosen)]
            return [rows[DIRECT], *(row for queue in chosen for row in queue.rows())]
        return rows.values()

    def stop(self, *, drain_seconds: float) -> None:
        """Claim nothing more, let what runs end, and stop DBOS."""
        deadline = time.monotonic() + drain_seconds
        self._store.work.serves = lambda _queue: False
        self._store.work.enqueued = lambda _queues: None
        self.dispatcher.stop()
        self.executor.stop(drain_seconds=drain_seconds)
        self._adapter.destroy(drain_seconds=max(0.0, deadline - time.monotonic()))
        self.presence.stop()
        for known in functions.workflows():
            known.start = known.body = None
        _log.info("stopped", extra={"action": "stopped"})


def _not_ours(call: Call) -> None:
    message = f"{call.payload:.100} is run by eventic_core's own workers, not by DBOS's."
    raise NotAllowed(message)


_process = Process()


def process() -> Process:
    """Give the runtime of this process."""
    return _process
