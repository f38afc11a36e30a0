"""Claimed work and threads: so many pieces of each queue at a time, and what becomes of them when the worker ends.

Owns what is held and what waits. How a piece is done is `performer`'s, how far ahead to claim is `load`'s.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from eventic_core.errors import Invalid, StoreUnavailable
from eventic_core.records.port import OwnershipLost
from eventic_core.runtime import counts, functions
from eventic_core.runtime.calls import Call
from eventic_core.runtime.finishing import Interrupted, interruptions
from eventic_core.runtime.load import QueueLoad
from eventic_core.runtime.performer import HANDLERS, Performer, Workflows, is_own
from eventic_core.runtime.queues import queue_name
from eventic_core.store.work import DIRECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.runtime.adapter import Claimed
    from eventic_core.store import PostgresStore
    from eventic_core.store.work import QueueRow

_log = logging.getLogger("eventic")

_THREADS = 256


def _is_ours(claimed: Claimed) -> bool:
    known = functions.known(claimed.name)
    return (
        known is not None
        and known.body is not None
        and not known.is_async
        and claimed.attempts <= known.max_attempts
        and claimed.payload.startswith(Call.PREFIX)
    )


def _kind(name: str) -> str:
    """Say in a word what a piece of work is."""
    if name in HANDLERS:
        return "handler"
    return name.removeprefix("eventic.") if is_own(name) else "workflow"


def _count(kind: str, queue: str, outcome: str, began: float | None) -> None:
    """Count a piece of work that has ended, and how long it took if that is known."""
    counts.WORK_ENDED.add(kind, queue_name(queue), outcome)
    if began is not None:
        counts.WORK_SECONDS.add(kind, time.monotonic() - began)


class Executor:
    """Runs claimed work; `done` is called with a queue's name whenever there is room for more of it."""

    def __init__(self, store: PostgresStore, dbos: Workflows) -> None:
        self._store = store
        self._dbos = dbos
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._loads: dict[str, QueueLoad] = {}
        self._held: dict[str, str] = {}
        self._foreign: dict[str, str] = {}
        self._began_at: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="eventic-work")
        self._stopping = False
        self.performer = Performer(store, dbos, lambda: self._stopping)
        self.asked_at = 0.0
        """When the dispatcher last asked what there is room for, by the monotonic clock; 0 is never."""
        self.done: Callable[[str], object] = lambda _queue: None

    def load(self, queue: QueueRow) -> QueueLoad:
        """Give what this process has of a queue."""
        self.asked_at = time.monotonic()
        with self._lock:
            load = self._loads.get(queue.name)
            if load is None or load.queue != queue:
                fresh = QueueLoad(queue)
                if load is not None:
                    fresh.running, fresh.waiting = load.running, load.waiting
                load = self._loads[queue.name] = fresh
            return load

    def submit(self, load: QueueLoad, claimed: list[Claimed], *, ended_before: int) -> None:
        """Run claimed work as soon as there is room; `ended_before` is `load.ended` when the claim was asked for."""
        with self._lock:
            load.claimed(len(claimed), ended_before=ended_before)
            load.waiting.extend(claimed)
        self._fill(load.queue.name)

    def _fill(self, queue: str) -> None:
        while True:
            with self._lock:
                load = self._loads[queue]
                if self._stopping or not load.waiting or load.running >= load.queue.per_worker:
                    return
                claimed = load.waiting.popleft()
                load.running += 1
                self._held[claimed.run_id] = claimed.owner
            if is_own(claimed.name) or _is_ours(claimed):
                self._submit(queue, claimed)
            else:
                self._leave_to_dbos(queue, claimed)

    def _submit(self, queue: str, claimed: Claimed) -> None:
        try:
            self._threads.submit(self._run, queue, claimed)
        except RuntimeError:  # the interpreter is on its way out: `stop` gives the work back
            with self._lock:
                self._stopping = True
                del self._held[claimed.run_id]
                self._loads[queue].running -= 1
                self._loads[queue].waiting.appendleft(claimed)

    def held(self) -> list[tuple[str, str]]:
        """Give what runs or waits here, as `(run id, owner)`."""
        with self._lock:
            waiting = [(claimed.run_id, claimed.owner) for load in self._loads.values() for claimed in load.waiting]
            return [*self._held.items(), *waiting]

    def has(self, run_id: str, owner: str) -> bool:
        """Tell whether a claim is held: it runs or waits here, or its outcome is to be stored."""
        return (run_id, owner) in self.held() or self.performer.outcomes.has(run_id, owner)

    def counts(self) -> tuple[int, int]:
        """Count what runs here, and what is claimed and has not begun."""
        with self._lock:
            return len(self._held), sum(len(load.waiting) for load in self._loads.values())

    def give_back(self, is_closed: Callable[[str], bool]) -> None:
        """Give back what has not begun of the queues that are closed."""
        with self._lock:
            loads = [load for load in self._loads.values() if load.waiting and is_closed(load.queue.name)]
            unbegun = [claimed for load in loads for claimed in load.waiting]
            for load in loads:
                load.waiting.clear()
        self._store.work.put_back([(claimed.run_id, claimed.owner) for claimed in unbegun])

    def _ended(self, queue: str, run_id: str) -> None:
        with self._lock:
            self._held.pop(run_id, None)
            load = self._loads[queue]
            load.running -= 1
            load.ended += 1
            load.fruitless, load.blocked_until = 0, 0.0
            room = load.wanted > 0
            self._idle.notify_all()
        self._fill(queue)
        if room:
            self.done(queue)

    # -- async workflows, those DBOS enqueued itself, and those it is to give up, are DBOS's to run

    def _leave_to_dbos(self, queue: str, claimed: Claimed) -> None:
        if not claimed.payload:
            self.performer.fail(
                claimed, Invalid(f"Run {claimed.run_id} has no input: somebody removed it, or never stored it.")
            )
            self._ended(queue, claimed.run_id)
            return
        if not self._dbos.knows(claimed.name):
            self.performer.park(claimed, f"workflow {claimed.name}")
            self._ended(queue, claimed.run_id)
            return
        with self._lock:
            self._foreign[claimed.run_id] = queue
            self._began_at[claimed.run_id] = time.monotonic()
        try:
            self._dbos.execute(claimed)
        except Exception as error:  # noqa: BLE001 - DBOS has stored it as the run's outcome where it could
            _log.exception("run %s could not be started", claimed.run_id, extra={"action": "start_failed"})
            self.performer.park(claimed, f"it could not be started: {error!r:.200}")
            self.workflow_ended(claimed.run_id)

    def workflow_ended(self, run_id: str, error: BaseException | None = None) -> None:
        """Take note that the body of a workflow has ended, with what it raised."""
        with self._lock:
            queue = self._foreign.pop(run_id, None)
            is_own = run_id in self._held and queue is None
            began = self._began_at.pop(run_id, None)
        if is_own:
            return  # counted when its outcome is known
        outcome = "done" if error is None else "failed" if isinstance(error, Exception) else "taken_over"
        _count("workflow", queue or DIRECT, outcome, began)
        if queue is not None:  # in DBOS's event loop for an async one, where nothing may be started
            with contextlib.suppress(RuntimeError):  # after `stop`, when nothing is started any more
                self._threads.submit(self._ended, queue, run_id)

    # -- our own work

    def _run(self, queue: str, claimed: Claimed) -> None:
        pause, began = 0.5, time.monotonic()
        try:
            while True:
                try:
                    with interruptions():
                        self.performer.perform(queue, claimed)
                except (Interrupted, StoreUnavailable) as error:
                    _log.warning("%s is repeated: %s", claimed.run_id, error, extra={"action": "repeat"})
                    time.sleep(pause)
                    pause = min(pause * 2, 5.0)
                    if not self._stopping:
                        continue
                return
        except OwnershipLost:
            self.performer.came_to[claimed.run_id] = "taken_over"
            _log.info("%s was taken over", claimed.run_id, extra={"action": "taken_over"})
        except Exception as error:  # noqa: BLE001 - the next piece of work must run, and this one must not be stranded
            _log.exception("%s failed in the worker itself", claimed.run_id, extra={"action": "worker_error"})
            self.performer.failed_itself(claimed, error)
        finally:
            _count(_kind(claimed.name), queue, self.performer.came_to.pop(claimed.run_id, "done"), began)
            self._ended(queue, claimed.run_id)

    # -- the end

    def stop(self, *, drain_seconds: float) -> None:
        """Give back what has not begun, and wait for what has; what does not end in time is given back, too.

        Neither counts as an attempt. What was given back while it ran may be begun elsewhere at once; it finds out with
        its next write that it is not this process's any more.
        """
        deadline = time.monotonic() + drain_seconds
        with self._lock:
            self._stopping = True
        with contextlib.suppress(StoreUnavailable):  # then, as below, it is taken over when this process has ended
            self.give_back(lambda _queue: True)
        with self._lock:
            while any(load.running for load in self._loads.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._idle.wait(left)
            unended = list(self._held.items())
        with contextlib.suppress(StoreUnavailable):
            self._store.work.release(unended)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.performer.stop()
