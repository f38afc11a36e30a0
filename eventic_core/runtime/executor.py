"""Claimed work, done: on threads, so many of each queue at a time, with outcomes that commit with what was written.

Handlers, calls that run later, and single transactions are one transaction each, their outcome in it. Outcomes of
workflows and single steps share a statement with those that end at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from eventic_core.errors import NotRegistered, RemoteError, StoreUnavailable, VersionConflict
from eventic_core.records.blocking import on_behalf
from eventic_core.records.methods import second_run
from eventic_core.records.port import OwnershipLost, StaleWrite
from eventic_core.records.stamp import acting
from eventic_core.runtime import codec, functions, performing
from eventic_core.runtime.adapter import Claimed
from eventic_core.runtime.calls import LATER, RUN, Call, error_text
from eventic_core.runtime.finishing import Finish, Interrupted, run_in_transaction
from eventic_core.runtime.handling import MOST_CRASHES, Handling, record_class
from eventic_core.runtime.outcomes import Outcomes
from eventic_core.store.handlers import HANDLE, HANDLE_MANY
from eventic_core.store.work import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from eventic_core.runtime.adapter import Position
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction
    from eventic_core.store.work import QueueRow

_log = logging.getLogger("eventic")

HANDLERS = frozenset({HANDLE, HANDLE_MANY})
OWN = HANDLERS | {LATER, RUN}
"""The names of the work that is ours to run."""
UNKNOWN_SECONDS = 30.0
"""At most, until work that is unknown here is offered again: to a worker that knows it, or after a deployment."""
UNSUSPECTED_CLAIMS = 2
"""Claims without an outcome that any work may have: a worker died or was stopped hard. After more it is suspect."""
_CONFLICTS = 10
_THREADS = 256
_MOST_AHEAD = 256
_SHORT_SECONDS, _LONG_SECONDS = 0.1, 0.5


class QueueLoad:
    """What this process has claimed of one queue: so much runs, so much waits.

    Claims reach ahead of what may run, and the further the faster the work is done: a claim costs as much as
    a few short pieces of work, but what is claimed ahead of slow work is kept from idle workers.
    """

    def __init__(self, queue: QueueRow) -> None:
        self.queue = queue
        self.running = 0
        self.waiting: deque[Claimed] = deque()
        self.blocked_until = 0.0
        self.fruitless = 0
        self.ended = 0
        self._window = queue.per_worker
        self._claimed_at = 0.0
        self._claimed = 0

    @property
    def wanted(self) -> int:
        """How many pieces to claim now; 0 while at least half of the window is still there."""
        held = self.running + len(self.waiting)
        return 0 if held > self._window // 2 and held >= self.queue.per_worker else self._window - held

    def claimed(self, count: int, *, ended_before: int) -> None:
        """Note a claim, and learn from how long the one before it lasted.

        One that found nothing, because all lanes are busy or somebody else was quicker, is not repeated at once, unless
        a piece of work of the queue has ended since it was asked.
        """
        now = time.monotonic()
        if self._claimed >= self._window // 2 and now - self._claimed_at < _SHORT_SECONDS:
            self._window = min(self._window * 2, max(_MOST_AHEAD, self.queue.per_worker))
        elif now - self._claimed_at > _LONG_SECONDS:
            self._window = self.queue.per_worker
        self._claimed_at, self._claimed = now, count
        free = count > 0 or self.ended != ended_before
        self.fruitless = 0 if free else min(self.fruitless + 1, 4)
        self.blocked_until = 0.0 if free else now + 0.1 * 2**self.fruitless


class Workflows(Protocol):
    """What the executor asks of DBOS; the adapter is one."""

    def run(self, claimed: Claimed, body: Callable[[Call], Any]) -> Any:
        """Run a workflow's body here."""

    def execute(self, claimed: Claimed) -> None:
        """Let DBOS run a workflow."""

    def knows(self, name: str) -> bool:
        """Tell whether a workflow is registered."""


def _is_ours(claimed: Claimed) -> bool:
    known = functions.known(claimed.name)
    return (
        known is not None
        and known.body is not None
        and not known.is_async
        and claimed.attempts <= known.max_attempts
        and claimed.payload.startswith(Call.PREFIX)
    )


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
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="eventic-work")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._suspects = threading.Lock()
        self._stopping = False
        self.outcomes = Outcomes(store)
        self.done: Callable[[str], object] = lambda _queue: None

    def load(self, queue: QueueRow) -> QueueLoad:
        """Give what this process has of a queue."""
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
            if claimed.name in OWN or performing.find(claimed.name) or _is_ours(claimed):
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
        if not self._dbos.knows(claimed.name):
            self._park(claimed, f"workflow {claimed.name}")
            self._ended(queue, claimed.run_id)
            return
        with self._lock:
            self._foreign[claimed.run_id] = queue
        try:
            self._dbos.execute(claimed)
        except Exception:  # noqa: BLE001 - DBOS has stored it as the run's outcome where it could
            _log.exception("run %s could not be started", claimed.run_id, extra={"action": "start_failed"})
            self.workflow_ended(claimed.run_id)

    def workflow_ended(self, run_id: str) -> None:
        """Take note that the body of a workflow has ended; of one that was not claimed here, nothing."""
        with self._lock:
            queue = self._foreign.pop(run_id, None)
        if queue is not None:  # in DBOS's event loop for an async one, where nothing may be started
            with contextlib.suppress(RuntimeError):  # after `stop`, when nothing is started any more
                self._threads.submit(self._ended, queue, run_id)

    # -- our own work

    def _run(self, queue: str, claimed: Claimed) -> None:
        pause = 0.5
        try:
            while True:
                try:
                    self._perform(claimed)
                except (Interrupted, StoreUnavailable) as error:
                    _log.warning("%s is repeated: %s", claimed.run_id, error, extra={"action": "repeat"})
                    time.sleep(pause)
                    pause = min(pause * 2, 5.0)
                    if not self._stopping:
                        continue
                return
        except OwnershipLost:
            _log.info("%s was taken over", claimed.run_id, extra={"action": "taken_over"})
        except Exception as error:  # noqa: BLE001 - the next piece of work must run, and this one must not be stranded
            _log.exception("%s failed in the worker itself", claimed.run_id, extra={"action": "worker_error"})
            self._park(claimed, f"the worker failed: {error!r:.200}")
        finally:
            self._ended(queue, claimed.run_id)

    def under_dbos(self, name: str, position: Callable[[], Position | None]) -> Callable[[Call], None]:
        """Make what DBOS runs for our own work when it dispatches itself: slower, and its log is not quiet about it."""

        def perform(call: Call) -> None:
            place = position()
            assert place is not None
            claimed = Claimed(place.run_id, name, place.owner, 1, call.payload, None)
            with functions.outside_journal():
                self._perform(claimed)
            self.outcomes.flush()

        return perform

    def _perform(self, claimed: Claimed) -> None:
        call = Call(claimed.payload)
        try:
            if claimed.name not in OWN and not performing.find(claimed.name):
                self._perform_workflow(claimed)
            elif claimed.attempts <= UNSUSPECTED_CLAIMS:
                self._perform_own(claimed, call, deaths=0)
            else:
                with self._suspects:  # alone among its like, so that one that kills does not drag others along
                    begun = self._store.work.begun(claimed.run_id, claimed.owner)
                    deaths = UNSUSPECTED_CLAIMS + begun - 1
                    self._perform_own(claimed, call, deaths=deaths)
        except NotRegistered as error:
            if claimed.name in HANDLERS and not self._store.handlers.is_subscribed(call.values["handler"]):
                self._finish(claimed, "null")  # the handler was removed: nobody wants it done
            else:
                self._park(claimed, error.message)

    def _perform_own(self, claimed: Claimed, call: Call, *, deaths: int) -> None:
        if claimed.name in HANDLERS:
            Handling(self._store, claimed, call.values, self._call, deaths=deaths).run()
        elif perform := performing.find(claimed.name):
            perform(self._assignment(claimed, call, deaths))
        elif deaths >= MOST_CRASHES:
            self._fail(claimed, RemoteError(f"The worker died {deaths} times over this run.", "worker"))
        elif claimed.name == LATER:
            self._perform_later(claimed, call)
        else:
            self._perform_function(claimed, call)

    def _assignment(self, claimed: Claimed, call: Call, deaths: int) -> performing.Assignment:
        return performing.Assignment(
            run_id=claimed.run_id,
            owner=claimed.owner,
            deaths=deaths,
            is_chance=deaths <= UNSUSPECTED_CLAIMS,
            values=call.values,
            store=self._store,
            invoke=self._call,
            event_loop=self._event_loop,
            is_stopping=lambda: self._stopping,
            finish=lambda result: self._finish(claimed, result),
        )

    def _perform_workflow(self, claimed: Claimed) -> None:
        known = functions.find(claimed.name)
        assert known.body is not None
        try:
            result = codec.dumps(self._dbos.run(claimed, known.body), f"the result of {known.name}()")
        except (OwnershipLost, NotRegistered):
            raise
        except Exception as error:  # noqa: BLE001 - the user's own: the outcome of the run
            self._fail(claimed, error)
        else:
            self._finish(claimed, result)

    def _perform_later(self, claimed: Claimed, call: Call) -> None:
        values = call.values
        cls = record_class(values["class"])
        if not callable(getattr(cls, values["method"], None)):
            message = f"{cls.__name__} has no method {values['method']!r} in this process: deploy the version that has."
            raise NotRegistered(message)
        args, kwargs = call.arguments()

        def body() -> Any:
            with second_run():
                record = cls.hydrate(values["record"])
                return self._call(getattr(record, values["method"]), *args, **kwargs)

        self._in_transaction(claimed, call, body)

    def _perform_function(self, claimed: Claimed, call: Call) -> None:
        known = functions.find(call.values["function"])
        args, kwargs = call.arguments()
        if known.kind == "transaction":
            self._in_transaction(claimed, call, lambda: self._call(known.plain, *args, **kwargs), known.plain.__name__)
            return
        key = f"{claimed.run_id}-1"
        try:
            with functions.step_context(self._store, known, key), self._acting(call):
                result = codec.dumps(self._call(known.plain, *args, **kwargs), f"the result of {known.name}()")
        except Exception as error:  # noqa: BLE001 - the user's own: the outcome of the run
            if claimed.attempts < known.retry.max_attempts:
                _log.warning("%s: attempt %s failed: %r", claimed.run_id, claimed.attempts, error)
                delay = max(known.retry.delay_after(claimed.attempts), 0.001)
                self._store.work.put_back([(claimed.run_id, claimed.owner)], delay_seconds=delay, counted=True)
                return
            self._fail(claimed, error)
        else:
            self._finish(claimed, result)

    def _in_transaction(self, claimed: Claimed, call: Call, body: Callable[[], Any], reason: str | None = None) -> None:
        finish = _Complete(self, claimed)
        for left in reversed(range(_CONFLICTS)):
            try:
                with self._acting(call), functions.idempotent(claimed.run_id):
                    run_in_transaction(
                        self._store, body, finish, run_id=claimed.run_id, step_id=None, default_reason=reason
                    )
            except (VersionConflict, StaleWrite) as error:  # it runs on the state as it is then: which has moved
                if left == 0:
                    self._fail(claimed, error)
            except (OwnershipLost, Interrupted, NotRegistered):
                raise
            except Exception as error:  # noqa: BLE001 - the user's own: the outcome of the run
                self._fail(claimed, error)
                return
            else:
                return

    def complete(self, claimed: Claimed, result: Any, tx: PostgresTransaction | None) -> None:
        """Store the result of a run in its transaction; one that wrote nothing shares a statement with others."""
        text = codec.dumps(result, f"the result of {claimed.run_id}")
        outcome = Outcome(claimed.run_id, claimed.owner, "SUCCESS", text, None)
        if tx is None:
            self.outcomes.add(outcome)
        elif not self._store.work.complete(outcome, tx):
            raise OwnershipLost(claimed.run_id)

    def _fail(self, claimed: Claimed, error: Exception) -> None:
        _log.error("run %s failed", claimed.run_id, extra={"action": "run_failed"}, exc_info=error)
        self.outcomes.add(Outcome(claimed.run_id, claimed.owner, "ERROR", None, error_text(error)))

    def _finish(self, claimed: Claimed, result: str) -> None:
        self.outcomes.add(Outcome(claimed.run_id, claimed.owner, "SUCCESS", result, None))

    def _park(self, claimed: Claimed, waiting_for: str) -> None:
        _log.warning("%s is put back: %s", claimed.run_id, waiting_for, extra={"action": "put_back"})
        owner, limit = claimed.owner, UNKNOWN_SECONDS
        self._store.work.park(claimed.run_id, owner, waiting_for=waiting_for, limit_seconds=limit)

    @staticmethod
    def _acting(call: Call) -> Any:
        return acting(actor=call.values.get("actor"), correlation_id=call.values.get("correlation_id"))

    def _call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, awaiting it on the worker's own event loop if it is async."""
        if not inspect.iscoroutinefunction(function):
            return function(*args, **kwargs)
        coroutine: Coroutine[Any, Any, Any] = function(*args, **kwargs)
        with on_behalf():
            return asyncio.run_coroutine_threadsafe(coroutine, self._event_loop()).result()

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="eventic-loop", daemon=True).start()
            return self._loop

    # -- the end

    def stop(self, *, drain_seconds: float) -> None:
        """Give back what has not begun, and wait for what has; what does not end in time is left to be taken over."""
        deadline = time.monotonic() + drain_seconds
        with self._lock:
            self._stopping = True
            unbegun = [claimed for load in self._loads.values() for claimed in load.waiting]
            for load in self._loads.values():
                load.waiting.clear()
        self._store.work.put_back([(claimed.run_id, claimed.owner) for claimed in unbegun])
        with self._lock:
            while any(load.running for load in self._loads.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._idle.wait(left)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.outcomes.stop()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run an event loop until it is stopped."""
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Complete(Finish):
    def __init__(self, executor: Executor, claimed: Claimed) -> None:
        super().__init__()
        self._executor = executor
        self._claimed = claimed

    def write(self, tx: PostgresTransaction | None) -> None:
        self._executor.complete(self._claimed, self.result, tx)
