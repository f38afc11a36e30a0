"""One claimed piece of work, done: from its payload to its outcome, which commits with what was written.

Handlers, calls that run later, and single transactions are one transaction each, their outcome in it. Outcomes of
workflows and single steps share a statement with those that end at the same time. Kinds of work that packages above
the runtime define are in `performing`; which thread it is done on, and when, decides `executor`.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from eventic_core.errors import Invalid, NotRegistered, RemoteError, StoreUnavailable, VersionConflict
from eventic_core.records.methods import second_run
from eventic_core.records.port import OwnershipLost, StaleWrite
from eventic_core.records.stamp import acting
from eventic_core.runtime import codec, counts, functions, performing, tracing
from eventic_core.runtime.adapter import Claimed
from eventic_core.runtime.calls import LATER, RUN, Call, error_text
from eventic_core.runtime.event_loop import EventLoop
from eventic_core.runtime.finishing import Finish, Interrupted, run_in_transaction
from eventic_core.runtime.handling import MOST_CRASHES, Handling, record_class
from eventic_core.runtime.outcomes import Outcomes
from eventic_core.runtime.queues import queue_name
from eventic_core.store.handlers import HANDLE, HANDLE_MANY
from eventic_core.store.work import DIRECT, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.runtime.adapter import Position
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")

HANDLERS = frozenset({HANDLE, HANDLE_MANY})
OWN = HANDLERS | {LATER, RUN}
"""The names of the work that is ours to run."""
UNKNOWN_SECONDS = 30.0
"""At most, until work that is unknown here is offered again: to a worker that knows it, or after a deployment."""
UNSUSPECTED_CLAIMS = 2
"""Claims without an outcome that any work may have: a worker died or was stopped hard. After more it is suspect."""
_CONFLICTS = 10
_FAILURES = 5
"""Times this worker itself fails over a piece of work before the work is given up."""
_MOST_FAILURES = 1000
_AGAIN_SECONDS = 1.0


class Workflows(Protocol):
    """What is asked of DBOS to run workflows; the adapter is one."""

    def run(self, claimed: Claimed, body: Callable[[Call], Any]) -> Any:
        """Run a workflow's body here."""

    def execute(self, claimed: Claimed) -> None:
        """Let DBOS run a workflow."""

    def knows(self, name: str) -> bool:
        """Tell whether a workflow is registered."""


def is_own(name: str) -> bool:
    """Tell whether work of a name is ours, and no workflow's."""
    return name in OWN or performing.find(name) is not None


class Performer:
    """Does claimed work, one piece at a call.

    Args:
        store: Where everything is.
        dbos: Runs workflows.
        is_stopping: Tells whether the worker drains.

    Attributes:
        came_to: What came of some work, if it is not simply done; whoever counts it takes it out.
    """

    def __init__(self, store: PostgresStore, dbos: Workflows, is_stopping: Callable[[], bool]) -> None:
        self._store = store
        self._dbos = dbos
        self._is_stopping = is_stopping
        self._lock = threading.Lock()
        self._suspects = threading.Lock()
        self._failures: dict[str, int] = {}
        self.came_to: dict[str, str] = {}
        self.outcomes = Outcomes(store)
        self._loop = EventLoop()
        self._call = self._loop.call

    def stop(self) -> None:
        """Store the outcomes there are, and end the event loop."""
        self.outcomes.stop()
        self._loop.stop()

    def under_dbos(self, name: str, position: Callable[[], Position | None]) -> Callable[[Call], None]:
        """Make what DBOS runs for our own work when it dispatches itself: slower, and its log is not quiet about it."""

        def perform(call: Call) -> None:
            place = position()
            assert place is not None
            claimed = Claimed(place.run_id, name, place.owner, 1, call.payload, None)
            with functions.outside_journal():
                self.perform(DIRECT, claimed)
            self.came_to.pop(claimed.run_id, None)
            self.outcomes.flush()

        return perform

    def perform(self, queue: str, claimed: Claimed) -> None:
        """Do a piece of work, and store or hand over what came of it.

        Raises:
            OwnershipLost: It was taken over.
            Interrupted, StoreUnavailable: Postgres is away: it is to be called again.
            Exception: What is wrong with the worker itself.
        """
        call = Call(claimed.payload)
        if not call.is_readable():
            self.fail(claimed, Invalid(f"The input of run {claimed.run_id} is no call: it cannot be read."))
            return
        with tracing.claim(claimed, call, queue=queue_name(queue), app_version=self._store.work.app_version):
            self._perform_known(claimed, call)

    def _perform_known(self, claimed: Claimed, call: Call) -> None:
        try:
            if not is_own(claimed.name):
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
                self.park(claimed, error.message)

    def _perform_own(self, claimed: Claimed, call: Call, *, deaths: int) -> None:
        if claimed.name in HANDLERS:
            Handling(self._store, claimed, call.values, self._call, deaths=deaths).run()
        elif perform := performing.find(claimed.name):
            perform(self._assignment(claimed, call, deaths))
        elif deaths >= MOST_CRASHES:
            self.fail(claimed, RemoteError(f"The worker died {deaths} times over this run.", "worker"))
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
            event_loop=self._loop.get,
            is_stopping=self._is_stopping,
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
            self.fail(claimed, error)
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

        name = f"{cls.__name__}.{values['method']}"
        span = functools.partial(tracing.span, "method", name, record__id=values["record"])
        self._in_transaction(claimed, call, body, span)

    def _perform_function(self, claimed: Claimed, call: Call) -> None:
        known = functions.find(call.values["function"])
        args, kwargs = call.arguments()
        if known.kind == "transaction":
            span = functools.partial(tracing.span, "transaction", known.name, run__id=claimed.run_id)
            reason = known.plain.__name__
            self._in_transaction(claimed, call, lambda: self._call(known.plain, *args, **kwargs), span, reason)
            return
        key = f"{claimed.run_id}-1"
        try:
            with (
                functions.step_context(self._store, known, key),
                self._acting(call),
                tracing.span("step", known.name, run__id=claimed.run_id, attempt=claimed.attempts),
            ):
                result = codec.dumps(self._call(known.plain, *args, **kwargs), f"the result of {known.name}()")
        except Exception as error:  # noqa: BLE001 - the user's own: the outcome of the run
            if claimed.attempts < known.retry.max_attempts:
                _log.warning("%s: attempt %s failed: %r", claimed.run_id, claimed.attempts, error)
                self.came_to[claimed.run_id] = "retried"
                counts.RETRIES.add("step")
                delay = max(known.retry.delay_after(claimed.attempts), 0.001)
                self._store.work.put_back([(claimed.run_id, claimed.owner)], delay_seconds=delay, counted=True)
                return
            self.fail(claimed, error)
        else:
            self._finish(claimed, result)

    def _in_transaction(
        self,
        claimed: Claimed,
        call: Call,
        body: Callable[[], Any],
        span: Callable[[], Any],
        reason: str | None = None,
    ) -> None:
        finish = _Complete(self, claimed)
        for left in reversed(range(_CONFLICTS)):
            try:
                with self._acting(call), functions.idempotent(claimed.run_id), span():
                    run_in_transaction(
                        self._store, body, finish, run_id=claimed.run_id, step_id=None, default_reason=reason
                    )
            except (VersionConflict, StaleWrite) as error:  # it runs on the state as it is then: which has moved
                counts.CONFLICTS.add("transaction")
                if left == 0:
                    self.fail(claimed, error)
            except (OwnershipLost, Interrupted, NotRegistered):
                raise
            except Exception as error:  # noqa: BLE001 - the user's own: the outcome of the run
                self.fail(claimed, error)
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

    def fail(self, claimed: Claimed, error: Exception) -> None:
        """Store an error as what came of the work."""
        _log.error("run %s failed", claimed.run_id, extra={"action": "run_failed"}, exc_info=error)
        self.came_to[claimed.run_id] = "failed"
        tracing.failed(error)
        self.outcomes.add(Outcome(claimed.run_id, claimed.owner, "ERROR", None, error_text(error)))

    def _finish(self, claimed: Claimed, result: str) -> None:
        self.outcomes.add(Outcome(claimed.run_id, claimed.owner, "SUCCESS", result, None))

    def park(self, claimed: Claimed, waiting_for: str) -> None:
        """Put work back, for a worker that has what it waits for."""
        _log.warning("%s is put back: %s", claimed.run_id, waiting_for, extra={"action": "put_back"})
        self.came_to[claimed.run_id] = "put_back"
        owner, limit = claimed.owner, UNKNOWN_SECONDS
        while True:
            try:
                self._store.work.park(claimed.run_id, owner, waiting_for=waiting_for, limit_seconds=limit)
            except StoreUnavailable:
                if not self._is_stopping():  # else it is taken over when this process has ended
                    time.sleep(_AGAIN_SECONDS)
                    continue
            return

    @staticmethod
    def _acting(call: Call) -> Any:
        return acting(actor=call.values.get("actor"), correlation_id=call.values.get("correlation_id"))

    def failed_itself(self, claimed: Claimed, error: Exception) -> None:
        """Let another worker try what this one failed over, and give it up when that has not helped either.

        Work of the engine itself is never given up: a run that shows what it waits for is better than one that silently
        never goes on.
        """
        if claimed.name in HANDLERS or performing.find(claimed.name):
            self.park(claimed, f"the worker failed: {error!r:.200}")
            return
        with self._lock:
            if len(self._failures) > _MOST_FAILURES:
                self._failures.clear()
            times = self._failures[claimed.run_id] = self._failures.get(claimed.run_id, 0) + 1
            if times >= _FAILURES:
                del self._failures[claimed.run_id]
        if times >= _FAILURES:
            self.fail(claimed, error)
        else:
            self.park(claimed, f"the worker failed: {error!r:.200}")


class _Complete(Finish):
    def __init__(self, performer: Performer, claimed: Claimed) -> None:
        super().__init__()
        self._performer = performer
        self._claimed = claimed

    def write(self, tx: PostgresTransaction | None) -> None:
        self._performer.complete(self._claimed, self.result, tx)
