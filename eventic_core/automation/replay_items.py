"""Items of a run done again in the past: the function called, and what came of it beside what came of it then.

Owns the replay of a page of items. Writes nothing, calls no step; where nothing on record answers, the item diverges.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json

from eventic_core.automation.effects import (
    EffectDifference,
    Net,
    are_equal,
    effects,
    names_of_new,
    nets_of,
    pair_effects,
    renamed,
)
from eventic_core.automation.item import Attempts, Outcome
from eventic_core.automation.outcomes import WORKER_DIED, ItemExecutionVersions
from eventic_core.automation.replay_past import Divergence, PastStore, RecordedSteps, as_stored
from eventic_core.automation.run_changes import BOOKKEEPING, postgres_store, run_history
from eventic_core.automation.run_diff import ItemDiff
from eventic_core.automation.status import ExecutionStatus
from eventic_core.automation.steering import ItemContext
from eventic_core.errors import HistoryRemoved, RecordExists, ReplayDiverged
from eventic_core.records.blocking import on_behalf
from eventic_core.records.diff import Change
from eventic_core.records.documents import same_value
from eventic_core.records.ids import ids_from, new_id
from eventic_core.records.port import StaleWrite
from eventic_core.records.stamp import Origin
from eventic_core.store.groups import GroupItem
from eventic_core.store.handlers import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.automation.effects import Effect, Pair
    from eventic_core.automation.run_changes import Writer
    from eventic_core.records.port import Append, StoredVersion
    from eventic_core.store.run_history import ReplayItem

_COMPARED: Final = {
    "status": "status",
    "result": "result_payload",
    "error": "error_message",
    "error_type": "error_type",
}


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of the replay of one item.

    Attributes:
        diff: The item then and now.
        done: What it did to records then.
        pairs: What it did to each record then and now; empty if it diverged.
        new_ids: The ids that records it created now were given by nobody.
        diverged: Whether nothing on record told how it goes on.
        dropped_work: Pieces of work that it enqueued, or its versions caused, which nobody does.
    """

    number: int
    diff: ItemDiff
    done: list[Net]
    pairs: list[Pair]
    new_ids: frozenset[UUID]
    diverged: bool
    dropped_work: int


@dataclass(slots=True)
class _Call:
    item: ReplayItem
    began: dict[str, Any]
    ended: dict[str, Any]
    done: list[Net]
    outcome: Outcome
    new_ids: set[UUID] = field(default_factory=set)


class EventLoop:
    """Calls functions, awaiting async ones on an event loop in a thread of its own, which the first of them starts."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def invoke(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call a function."""
        if not inspect.iscoroutinefunction(function):
            return function(*args)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="eventic-replay", daemon=True)
            self._thread.start()
        with on_behalf():
            return asyncio.run_coroutine_threadsafe(function(*args), self._loop).result()

    def close(self) -> None:
        """End the loop, and the tasks that functions have left on it."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


class Replayer:
    """Replays items of a run, one after the other.

    Args:
        writer: The run.
        automation: Whose function is called.
        as_of: The moment as of which all is read; `None` is that at which each item's last attempt began.
    """

    def __init__(self, writer: Writer, automation: DeclaredAutomation[Any, Any], as_of: datetime | None) -> None:
        self.event_loop = EventLoop()
        self._writer = writer
        self._automation = automation
        self._as_of = as_of
        self._store = postgres_store()
        self._origin = Origin(correlation_id=writer.run.correlation_id, workflow_id=writer.workflow_ids[-1])

    def replay(self, numbers: Sequence[int]) -> list[Replayed]:
        """Replay some items that have begun, in the order of their numbers."""
        statuses = [str(status) for status in ExecutionStatus]
        items = run_history().last_attempts(self._writer.run.id, numbers, statuses, self._as_of)
        if missing := sorted(set(numbers) - {item.number for item in items}):
            message = (
                f"Run {self._writer.run.id} cannot be replayed: what its item {missing[0]} was when it began is not "
                "stored any more, for retention has removed past versions of ItemExecution."
            )
            raise HistoryRemoved(message)
        # What an attempt that was snoozed has written was there when the last one began.
        since = {item.number: item.before for item in items} if self._as_of is None else None
        done = nets_of(self._writer.workflow_ids, numbers, since=since)
        calls = [self._call(item, done.get(item.number, [])) for item in items]
        rows = self._rows([_ends(call.outcome.appends)[0] for call in calls])
        return [self._compared(call, rows) for call in calls]

    # -- the call

    def _call(self, item: ReplayItem, done: list[Net]) -> _Call:
        began = from_json(item.began)
        ended = began if item.ended is None else from_json(item.ended)
        call = _Call(item, began, ended, done, Outcome())
        problem = self._problem(item, ended)
        call.outcome = Outcome(error=ReplayDiverged(problem)) if problem else self._attempt(call)
        return call

    def _problem(self, item: ReplayItem, ended: Mapping[str, Any]) -> str | None:
        """Say why an item cannot be replayed at all."""
        if item.deleted is None or item.deleted:
            state = "is not stored yet" if item.deleted is None else "is deleted"
            return f"Item {ended['item_id']} {state} as of {item.moment.isoformat()}, so there is nothing to do."
        if ended["error_type"] == WORKER_DIED:
            return "Its worker died over it, which this process would too: it is not replayed."
        return None

    def _attempt(self, call: _Call) -> Outcome:
        item, began = call.item, call.began
        divergence = Divergence()
        pins = {} if self._as_of is not None else {net.after.id: net.before for net in call.done}
        steps = RecordedSteps(call.ended.get("steps") or [], divergence)
        context = ItemContext(
            run_id=self._writer.run.id,
            batch_execution_id=UUID(began["batch_execution_id"]),
            item_id=UUID(began["item_id"]),
            item_execution_id=item.id,
            number=item.number,
            attempt=int(began["attempt_count"]),
            correlation_id=self._origin.correlation_id,
            idempotency_key=f"{self._writer.run.id}:{item.number}",
        )
        attempts = Attempts(self._automation, self._store, self._origin, partial(self._invoke, call.new_ids))
        try:
            outcome = attempts.call(
                item.payload,
                context,
                lambda outcome, _late: PastStore(self._store, item.moment, pins, outcome, divergence),
                steps,
            )
        except StaleWrite as error:
            cause = error.__cause__
            outcome = Outcome(error=cause if isinstance(cause, Exception) else error)
        if divergence.error is not None:
            return Outcome(error=divergence.error, steps=steps.entries, began_at=outcome.began_at)
        return outcome

    def _invoke(self, new_ids: set[UUID], function: Callable[..., Any], /, *args: Any) -> Any:
        def made() -> UUID:
            record_id = new_id()
            new_ids.add(record_id)
            return record_id

        with ids_from(made):
            return self.event_loop.invoke(function, *args)

    # -- what came of it

    def _rows(self, firsts: Sequence[Mapping[UUID, Append]]) -> dict[tuple[UUID, int], StoredVersion]:
        """Read what each item's first versions of records follow, and what is stored as new ones are to be."""
        wanted = {(record_id, max(append.version - 1, 0)) for first in firsts for record_id, append in first.items()}
        return {(row.id, row.version): row for row in self._store.versions(list(wanted))}

    def _compared(self, call: _Call, rows: Mapping[tuple[UUID, int], StoredVersion]) -> Replayed:
        nets, taken = self._nets(call, rows)
        if taken is not None:
            call.outcome = Outcome(error=taken, steps=call.outcome.steps, began_at=call.outcome.began_at)
            nets = []
        diverged = isinstance(call.outcome.error, ReplayDiverged)
        pairs = [] if diverged else pair_effects(effects(call.done), effects(nets))
        records = tuple(EffectDifference(_bare(one), _bare(other)) for one, other in pairs if not are_equal(one, other))
        now = self._document(call)
        fields = _fields(call.ended, now, names_of_new(call.done), names_of_new(nets))
        item_id = UUID(call.began["item_id"])
        diff = ItemDiff(
            kind="different" if fields or records else "same",
            key=str(item_id),
            numbers=(call.item.number, call.item.number),
            item_ids=(item_id, item_id),
            fields=fields,
            seconds=(_seconds(call.ended), _seconds(now)),
            records=records,
        )
        work = len(call.outcome.work) + sum(map(self._handlings, call.outcome.appends))
        return Replayed(call.item.number, diff, call.done, pairs, frozenset(call.new_ids), diverged, work)

    def _nets(
        self, call: _Call, rows: Mapping[tuple[UUID, int], StoredVersion]
    ) -> tuple[list[Net], RecordExists | None]:
        """Give what the call did to records, and the error that storing it would have raised."""
        first, last = _ends(call.outcome.appends)
        created = {net.after.id for net in call.done if net.before is None} if self._as_of is None else set()
        for append in call.outcome.appends:
            there = rows.get((append.id, 0))
            exists = there is not None and there.stamp.recorded_at <= call.item.moment and append.id not in created
            if append.version == 0 and (append is not first[append.id] or exists):
                message = f"{append.class_type}(id={append.id}) is stored already; id= is for new records."
                return [], RecordExists(message)
        nets = [
            Net(rows.get((record_id, first[record_id].version - 1)), as_stored(append))
            for record_id, append in last.items()
            if append.class_type not in BOOKKEEPING
        ]
        return nets, None

    def _document(self, call: _Call) -> dict[str, Any]:
        """Make the item's execution as it would be stored."""
        item = call.item
        versions = ItemExecutionVersions.of(GroupItem(item.id, item.version, item.began, item.payload), self._origin)
        versions.end(call.outcome, self._automation)
        document: dict[str, Any] = from_json(to_json(versions.document))
        return document

    def _handlings(self, append: Append) -> int:
        subscribed = self._store.handlers.of_class(append.class_type)
        return len({known.handler for known in subscribed if matches(known, append)})


def _ends(appends: Sequence[Append]) -> tuple[dict[UUID, Append], dict[UUID, Append]]:
    """Give the first and the last version of each record."""
    first: dict[UUID, Append] = {}
    for append in appends:
        first.setdefault(append.id, append)
    return first, {append.id: append for append in appends}


def _bare(effect: Effect | None) -> Effect | None:
    return None if effect is None else replace(effect, net=None)


def _fields(
    then: Mapping[str, Any], now: Mapping[str, Any], names_then: Mapping[str, str], names_now: Mapping[str, str]
) -> tuple[Change, ...]:
    found = []
    for name, key in _COMPARED.items():
        before, after = _anonymous(then.get(key), names_then), _anonymous(now.get(key), names_now)
        if not same_value(before, after):
            found.append(Change(name, before, after))
    called = [[entry["name"] for entry in document.get("steps") or []] for document in (then, now)]
    if called[0] != called[1]:
        found.append(Change("steps", *called))
    return tuple(found)


def _anonymous(value: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return renamed(value, names)
    for record_id, name in names.items():  # in a message, the id is part of the text
        value = value.replace(record_id, name)
    return value


def _seconds(document: Mapping[str, Any]) -> float | None:
    if document["started_at"] is None or document["finished_at"] is None:
        return None
    started, finished = map(datetime.fromisoformat, (document["started_at"], document["finished_at"]))
    return (finished - started).total_seconds()
