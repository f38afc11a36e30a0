"""Which handlers subscribe to what: rows that every writer goes by, whatever it imported itself.

Owns the process's copy of the list, and the work a version causes. A write names the generation of the list it went by
and is refused if that is not the last one, so the copy cannot be stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic_core import to_json

from eventic_core.records.port import StoredVersion, Work
from eventic_core.records.record_class import DEFAULT_CONCURRENCY, find_class, lineage, snake_case
from eventic_core.store.sql import statement
from eventic_core.store.trace import carried, is_traced
from eventic_core.store.work import QueueRow, WorkTable, lane_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from eventic_core.records.port import Append
    from eventic_core.store.engine import Database

Kind = Literal["create", "update", "delete", "call"]

HANDLE = "eventic.handle"
HANDLE_MANY = "eventic.handle_many"
CHUNK_RECORDS = 500
"""New records in one piece of work after a bulk creation: some tenths of a second, and a small row."""

GENERATION = statement("generation").strip()

_HANDLERS = statement("handlers")
_SUBSCRIBE = statement("subscribe")
_UNSUBSCRIBE = statement("unsubscribe")
_CAUGHT_UP = statement("caught_up")


class Subscription(NamedTuple):
    """That a handler wants to know of versions: of a class and its subclasses, of one kind."""

    handler: str
    class_type: str
    kind: Kind
    method: str = ""


class Subscribed(NamedTuple):
    """A stored subscription: it concerns versions from a place in the change feed on."""

    subscription: Subscription
    since_xid: str
    caught_up: bool


def matches(subscription: Subscription, version: Append | StoredVersion) -> bool:
    """Tell whether a version, of a class that fits, is of the kind subscribed to."""
    source = version.stamp if isinstance(version, StoredVersion) else version
    if subscription.kind == "call":
        return subscription.method in (source.calls or "").split(",")
    if source.tombstone:
        return subscription.kind == "delete"
    return subscription.kind == ("create" if version.version == 0 else "update")


def queue_of(class_type: str) -> QueueRow:
    """Give the queue of a record class; of one this process has not defined, with the defaults."""
    cls = find_class(class_type)
    name = f"queue_{snake_case(class_type)}"
    if cls is None:
        return QueueRow(name, per_worker=DEFAULT_CONCURRENCY, lanes=True)
    return QueueRow(name, per_worker=cls.__eventic__.concurrency, lanes=cls.__eventic__.ordered)


def call_payload(values: Mapping[str, object]) -> str:
    """Give the input of a run as JSON text: the mapping, which nobody decodes before the run starts, and the trace."""
    return to_json({"$": "call", "v": {**values, **carried()} if is_traced() else values}).decode()


def handle_work(handler: str, class_type: str, record_id: UUID, version: int, *, again: str = "") -> Work:
    """Make the work of handling a record's versions up to this one.

    Args:
        handler: Its name.
        class_type: The record's class.
        record_id: The record.
        version: The version that causes it.
        again: Tells repetitions of the same work apart.
    """
    queue = queue_of(class_type)
    return Work(
        id=f"{handler}:{record_id}:{version}" + (f":{again}" if again else ""),
        name=HANDLE,
        queue=queue.name,
        payload=call_payload({"handler": handler, "class": class_type, "record": record_id, "version": version}),
        lane=lane_of(record_id) if queue.lanes else None,
    )


class HandlerList:
    """The process's copy of the subscriptions, and what a write makes of them."""

    def __init__(self, database: Database, work: WorkTable) -> None:
        self.generation = 0
        self.all: tuple[Subscribed, ...] = ()
        self._database = database
        self._work = work
        self._by_class: dict[str, tuple[Subscription, ...]] = {}

    def refresh(self) -> bool:
        """Read the list again; tells whether it was another one."""
        rows = self._database.fetch(_HANDLERS, ())
        moved = bool(self.generation != rows[0][0])
        found = [
            Subscribed(Subscription(name, class_type, kind, method), since, done)
            for _generation, name, class_type, kind, method, since, done in rows
            if name is not None
        ]
        self.all, self._by_class = tuple(found), {}
        self.generation = rows[0][0]
        return moved

    def of_class(self, class_type: str) -> tuple[Subscription, ...]:
        """Give the subscriptions that concern versions of a class."""
        known = self._by_class.get(class_type)
        if known is None:
            names = lineage(class_type)
            known = tuple(entry.subscription for entry in self.all if entry.subscription.class_type in names)
            self._by_class[class_type] = known
        return known

    def is_subscribed(self, handler: str) -> bool:
        """Tell whether a handler has a subscription, by the list as it is now."""
        self.refresh()
        return any(entry.subscription.handler == handler for entry in self.all)

    def since(self, handler: str) -> str:
        """Give the transaction id from which on versions concern a handler."""
        return min(
            (entry.since_xid for entry in self.all if entry.subscription.handler == handler), key=int, default="0"
        )

    def follow_ups(self, appends: Iterable[Append]) -> list[Work]:
        """Make the work that versions about to be written cause."""
        work: list[Work] = []
        for append in appends:
            subscriptions = self.of_class(append.class_type)
            if not subscriptions:
                continue
            for version in append.each():
                names = dict.fromkeys(known.handler for known in subscriptions if matches(known, version))
                work += [handle_work(name, version.class_type, version.id, version.version) for name in names]
                if names:
                    self._work.ensure_queue(queue_of(version.class_type))
        return work

    def bulk_follow_ups(self, class_type: str, ids: Sequence[UUID]) -> list[Work]:
        """Make the work that a bulk creation causes: chunks, not a row for each record."""
        handlers = dict.fromkeys(known.handler for known in self.of_class(class_type) if known.kind == "create")
        queue = queue_of(class_type)
        work = []
        for handler in handlers:
            for number, first in enumerate(range(0, len(ids), CHUNK_RECORDS)):
                chunk = ids[first : first + CHUNK_RECORDS]
                payload = call_payload({"handler": handler, "class": class_type, "records": chunk})
                # Lanes of their own: a chunk waits for no record, and as many run as a worker has room for.
                lane = f"bulk-{number % queue.per_worker}" if queue.lanes else None
                work.append(Work(f"{handler}:bulk:{chunk[0]}", HANDLE_MANY, queue.name, payload, lane))
        if work:
            self._work.ensure_queue(queue)
        return work

    def subscribe(self, subscriptions: Sequence[Subscription], *, backfill: frozenset[str]) -> None:
        """Store subscriptions; those that are stored stay as they are.

        Args:
            subscriptions: Of this process's handlers.
            backfill: Handlers that want every version there ever was; others start from now.
        """
        if subscriptions:
            columns = [list(column) for column in zip(*subscriptions, strict=True)]
            wanted = [entry.handler in backfill for entry in subscriptions]
            self._database.fetch(f"{_SUBSCRIBE} returning generation", (*columns, wanted))
        self.refresh()

    def unsubscribe(self, handler: str) -> int:
        """Drop a handler's subscriptions; gives how many there were."""
        rows = self._database.fetch(_UNSUBSCRIBE, (handler,))
        self.refresh()
        return int(rows[0][0]) if rows else 0

    def note_caught_up(self, handler: str) -> None:
        """Note that no version since the handler subscribed was missed."""
        self._database.fetch(f"{_CAUGHT_UP} returning 1", (handler,))
