"""The worker of a launched process: DBOS, a slot, a dispatcher and an executor, and the queues they serve."""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from eventic_core.records.record_class import registered
from eventic_core.runtime import adapter, functions, handlers, performing
from eventic_core.runtime.calls import LATER, RUN
from eventic_core.runtime.catching_up import catch_up
from eventic_core.runtime.dispatcher import Dispatcher
from eventic_core.runtime.executor import Executor
from eventic_core.runtime.journal import StatementJournal
from eventic_core.runtime.presence import Presence
from eventic_core.runtime.queues import Queue, queue_name
from eventic_core.runtime.unheld import UnheldWork
from eventic_core.store.handlers import HANDLE, HANDLE_MANY, Subscription, queue_of
from eventic_core.store.work import DEFAULT_PER_WORKER, DIRECT, QueueRow
from eventic_core.store.workers import Load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventic_core.runtime.functions import Function
    from eventic_core.runtime.journal import Journal
    from eventic_core.settings import Settings
    from eventic_core.store import PostgresStore
    from eventic_core.store.slots import Slot
    from eventic_core.store.workers import Wishes

_log = logging.getLogger("eventic")
_REFRESH_SECONDS = 1.0


class Worker:
    """Runs workflows and serves queues in this process, from `start` to `stop`.

    Args:
        store: Where records and work are.
        settings: Of the application.
        url: The database.
        queues: Those the process asked for, by name; more may come.
        chosen: Names of the queues to serve; `None` for all whose work this process knows.
    """

    def __init__(
        self,
        store: PostgresStore,
        settings: Settings,
        url: str,
        queues: dict[str, Queue],
        chosen: frozenset[str] | None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._url = url
        self._declared = queues
        self._chosen = chosen
        self._served: tuple[QueueRow, ...] = ()
        self._served_at = 0.0
        self.slot = ""
        self._subscribed: set[Subscription] = set()
        self._datasource: Any = None
        self._stopping = threading.Event()
        self.executor = Executor(store, adapter)
        self._claims = adapter.Claims(store.work)
        self.dispatcher = Dispatcher(store, self.executor, self.served, self._claims)
        self._unheld = UnheldWork(store, self._has)
        self.presence = Presence(
            store,
            settings,
            self._load,
            notified=self.dispatcher.wake,
            looked=self._give_back_unheld,
            renamed=self._renamed,
            wished=self._wished,
        )
        self._paused: frozenset[str] = frozenset()
        self.drain_asked = threading.Event()
        """Set when an operator has asked this worker to end; it has stopped claiming by then."""

    @property
    def _dispatches(self) -> bool:
        return self._settings.dispatcher == "own"

    def start(self) -> None:
        """Launch DBOS under the slot's name, subscribe the handlers, and begin to dispatch."""
        self.slot = slot = self.presence.start()
        try:
            adapter.migrate_if_asked(self._settings, self._url)
            self._store.work.take_over([slot])  # of an earlier life, under whatever name
            if self._settings.checkpoints == "datasource":
                self._datasource = adapter.open_datasource(
                    self._url, pool_size=self._settings.pool_size, session_name=self._store.database.session_name
                )
            for known in functions.workflows():
                self.register(known)
            for name in (HANDLE, HANDLE_MANY, LATER, RUN, *performing.names()):
                perform = self.executor.performer.under_dbos(name, adapter.position)
                adapter.register_workflow(name, perform, max_attempts=functions.MAX_ATTEMPTS)
            adapter.launch(
                self._settings,
                self._url,
                executor_id=slot,
                session_name=self._store.database.session_name,
                own_dispatch=self._dispatches,
            )
            self._subscribe()
        except BaseException:
            self.presence.stop()
            adapter.destroy(drain_seconds=0)
            raise
        if self._dispatches:
            self._store.work.serves = self._serves
            self._store.work.enqueued = self.dispatcher.wake
            self.dispatcher.start()
        else:
            self._served = tuple(self._find_served())  # for others to see: DBOS listens by itself
        # What is loaded by now stays: the collector need not look through all of it again for every few hundred items.
        gc.freeze()
        _log.info("launched as %s", slot, extra={"action": "launched"})

    def _renamed(self, slot: str) -> None:
        """Go on under another slot: its old one is somebody else's, who would be asked in vain for what runs here."""
        adapter.rename_executor(slot)
        self._store.work.move(self.executor.held(), slot)
        _log.warning("%s goes on as %s", self.slot, slot, extra={"action": "renamed"})
        self.slot = slot

    # -- what others see, and want

    def _load(self) -> Load:
        names = dict.fromkeys(queue_name(row.name) for row in self._served)
        running, claimed = self.executor.counts()
        is_draining = self.drain_asked.is_set() or self._stopping.is_set()
        return Load(list(names), running, claimed, is_draining)

    def _wished(self, wishes: Wishes) -> None:
        resumed, self._paused = self._paused - wishes.paused, wishes.paused
        if wishes.drain and not self.drain_asked.is_set():
            _log.warning("%s was asked to end: it takes no more work", self.slot, extra={"action": "drain"})
            self.drain_asked.set()
        if resumed or wishes.drain:
            self.dispatcher.wake()

    def _has(self, run_id: str, owner: str) -> bool:
        return not self._claims.is_settled(owner) or self.executor.has(run_id, owner)

    def _give_back_unheld(self, slot: Slot) -> None:
        if self._dispatches and self._unheld.give_back(slot):
            self.dispatcher.wake()

    def _serves(self, queue: str) -> bool:
        return any(row.name == queue for row in self._served) and not self._is_closed(queue)

    def _is_closed(self, queue: str) -> bool:
        """Tell whether nothing may be claimed of a queue."""
        return self.drain_asked.is_set() or queue_name(queue) in self._paused

    def register(self, known: Function) -> None:
        """Tell DBOS of a workflow."""
        known.body = functions.entry(known, self._journal, self.executor.workflow_ended)
        known.start = adapter.register_workflow(known.name, known.body, max_attempts=known.max_attempts)

    def _journal(self) -> Journal:
        position = adapter.position()
        assert position is not None
        if self._datasource is not None:
            from eventic_core.runtime.datasource import DatasourceJournal

            journal: Journal = DatasourceJournal(self._store, position, adapter.lost)
            return journal
        return StatementJournal(self._store, position, adapter.lost)

    # -- handlers

    def _subscribe(self) -> None:
        """Store the subscriptions of handlers defined since the last time, and see to what they may have missed."""
        found = list(handlers.defined())
        wanted = [entry for handler in found for entry in handler.subscriptions if entry not in self._subscribed]
        if not wanted:
            return
        for entry in wanted:
            self._store.work.ensure_queue(queue_of(entry.class_type))
        self._store.handlers.subscribe(wanted, backfill=frozenset(h.name for h in found if h.backfill))
        self._subscribed.update(wanted)
        behind = {entry.subscription.handler for entry in self._store.handlers.all if not entry.caught_up}
        if own := sorted(behind & {entry.handler for entry in wanted}):
            arguments = (self._store, own, self._stopping)
            threading.Thread(target=catch_up, args=arguments, name="eventic-catch-up", daemon=True).start()

    # -- queues

    def served(self) -> tuple[QueueRow, ...]:
        """Give the queues to claim from; what is defined after the launch counts from the next second on."""
        now = time.monotonic()
        if now - self._served_at > _REFRESH_SECONDS:
            self._subscribe()
            self._store.handlers.refresh()
            self._served, self._served_at = tuple(self._find_served()), now
        if self._paused or self.drain_asked.is_set():
            self.executor.give_back(self._is_closed)
            return tuple(row for row in self._served if not self._is_closed(row.name))
        return self._served

    def _find_served(self) -> Iterable[QueueRow]:
        direct = QueueRow(DIRECT, per_worker=DEFAULT_PER_WORKER)
        if self._chosen is not None:
            chosen = [self._declared.get(name) or Queue(name) for name in sorted(self._chosen)]
            return [direct, *(row for queue in chosen for row in queue.rows())]
        rows = {DIRECT: direct}
        for cls in registered():
            if cls.__eventic__.class_type and self._knows_handlers_of(cls.__eventic__.class_type):
                row = queue_of(cls.__eventic__.class_type)
                rows[row.name] = row
                if row.lanes:
                    rows[f"{row.name}.parallel"] = row._replace(name=f"{row.name}.parallel", lanes=False)
        for queue in list(self._declared.values()):
            if not queue.name.startswith("queue_") or queue.name in rows:
                rows |= {row.name: row for row in queue.rows()}
        return rows.values()

    def _knows_handlers_of(self, class_type: str) -> bool:
        """Tell whether this process knows one of the class's handlers, or there is none.

        One that no code has any more, after a renaming, must not hold the others up; its own work is put back.
        """
        known = {handler.name for handler in handlers.defined()}
        subscriptions = self._store.handlers.of_class(class_type)
        return not subscriptions or any(entry.handler in known for entry in subscriptions)

    def stop(self, *, drain_seconds: float) -> None:
        """Claim nothing more, let what runs end, and stop DBOS."""
        gc.unfreeze()
        deadline = time.monotonic() + drain_seconds
        self._stopping.set()
        self._store.work.serves = lambda _queue: False
        self._store.work.enqueued = lambda _queues: None
        self.dispatcher.stop()
        self.executor.stop(drain_seconds=drain_seconds)
        is_idle = self._dispatches and not adapter.runs_workflows()  # then DBOS, too, would wait for nothing: a second
        adapter.destroy(drain_seconds=0 if is_idle else max(0.0, deadline - time.monotonic()))
        self.presence.stop()
        for known in functions.workflows():
            known.start = known.body = None
        _log.info("stopped", extra={"action": "stopped"})
