"""The versions written while a handler's subscription was on its way, and for a back-fill all before: none is missed.

A writer that began before the subscription committed did not know of it. The change feed has its versions once it has
ended; so the feed is read from where the subscription begins until every transaction of that time is over.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from eventic_core.errors import StoreUnavailable
from eventic_core.records.port import Cursor
from eventic_core.store.handlers import handle_work, matches, queue_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.records.port import StoredVersion
    from eventic_core.store import PostgresStore

_log = logging.getLogger("eventic")
_BATCH = 500
_LAST_POSITION = 2**62
_WAIT_SECONDS = 0.5


def catch_up(store: PostgresStore, handlers: Sequence[str], stopping: threading.Event | None = None) -> None:
    """Enqueue what the handlers have missed; what they have not missed is known by its id and stays as it is.

    Args:
        store: Of the process.
        handlers: Their names.
        stopping: Set to end early; the next launch does it again.
    """
    stop = stopping or threading.Event()
    try:
        until = store.feed_horizon()[1]
        since = min(int(store.handlers.since(name)) for name in handlers)
        cursor = Cursor(since - 1, _LAST_POSITION) if since else Cursor()
        while not stop.is_set():
            settled = store.feed_horizon()[0] >= until
            cursor = _enqueue_missed(store, set(handlers), cursor, stop)
            if settled:
                break
            stop.wait(_WAIT_SECONDS)
        else:
            return
        for name in handlers:
            store.handlers.note_caught_up(name)
        store.handlers.refresh()
    except StoreUnavailable:
        _log.warning("handlers %s catch up at the next launch", ", ".join(handlers), extra={"action": "wait"})


def _enqueue_missed(store: PostgresStore, names: set[str], cursor: Cursor, stop: threading.Event) -> Cursor:
    while not stop.is_set():
        rows = store.changes(None, cursor, _BATCH)
        work = [
            handle_work(name, row.class_type, row.id, row.version)
            for row in rows
            for name in sorted(names & _concerned(store, row))
        ]
        for class_type in {row.class_type for row in rows}:
            store.work.ensure_queue(queue_of(class_type))
        if work:
            store.enqueue(work)
        if rows:
            cursor = Cursor(rows[-1].stamp.xid, rows[-1].stamp.position)
        if len(rows) < _BATCH:
            return cursor
    return cursor


def _concerned(store: PostgresStore, row: StoredVersion) -> set[str]:
    return {entry.handler for entry in store.handlers.of_class(row.class_type) if matches(entry, row)}
