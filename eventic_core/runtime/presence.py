"""That this process is there: it holds a slot, beats, hears of work and of wishes, and takes over from the dead.

All of it goes through the slot's own connection, which no other work can use up. The beat is by the server's clock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import random
import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from eventic_core.errors import StoreUnavailable
from eventic_core.runtime import takeover
from eventic_core.store.slots import Slot
from eventic_core.store.workers import Load, Process, Wishes

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.settings import Settings
    from eventic_core.store import PostgresStore

_log = logging.getLogger("eventic")

BEAT_SECONDS = 2.0
TAKE_OVER_SECONDS = 5.0
"""Between looks for workers whose work somebody else must do."""
LISTEN_SECONDS = 1.0
"""At most, without a notification, between one turn and the next."""


class Presence:
    """A thread that holds the slot.

    Args:
        store: Where it is.
        settings: Of the application, which others see.
        load: Tells what this process does at the moment.
        notified: Called when there is work: another process has enqueued some, or died over it.
        looked: Called after each look at others, with the slot, for a look at this process itself.
        renamed: Called with the new slot, if another process took the old one while the connection was lost.
        wished: Called after each beat with what operators want.
    """

    def __init__(
        self,
        store: PostgresStore,
        settings: Settings,
        load: Callable[[], Load],
        *,
        notified: Callable[[], object],
        looked: Callable[[Slot], object],
        renamed: Callable[[str], object],
        wished: Callable[[Wishes], object],
    ) -> None:
        self._store = store
        self._slot = Slot(store.database)
        self._take_over = takeover.TakeOver(store, self._slot)
        self._process = Process(
            settings.name, settings.app_version, version("eventic-core"), platform.node(), os.getpid()
        )
        self._load = load
        self._notified = notified
        self._look_at_self = looked
        self._renamed = renamed
        self._wished = wished
        self._id: UUID = uuid4()
        self._name = ""
        self._steady_since = self.turned_at = self._beaten_at = self._looked_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="eventic-presence", daemon=True)

    def start(self) -> str:
        """Take the first free slot and begin; gives its name, the executor id."""
        self._name = self._slot.take()
        self._take_over.inherit()
        self._enter()
        self._steady_since = self.turned_at = self._looked_at = time.monotonic()
        self._thread.start()
        return self._name

    def stop(self) -> None:
        """Give the slot up, and say so."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        with contextlib.suppress(StoreUnavailable):  # then somebody finds the lock free
            self._store.workers.end(self._slot)
        self._slot.give_up()

    def _enter(self) -> None:
        self._id = uuid4()
        self._store.workers.begin(self._slot, self._id, self._process)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self.turned_at = time.monotonic()
            try:
                self._turn()
            except StoreUnavailable as error:
                self._steady_since = time.monotonic()
                _log.warning("%s waits for Postgres: %s", self._slot.name, error, extra={"action": "wait"})
                self._stopping.wait(random.uniform(0.2, 1.0))  # noqa: S311 - jitter
            except Exception:  # noqa: BLE001 - it must live as long as the process
                _log.exception("%s", self._slot.name, extra={"action": "presence_failed"})
                self._stopping.wait(1.0)

    def _turn(self) -> None:
        notice = self._slot.wait(LISTEN_SECONDS)
        if self._slot.name != self._name:
            self._take_over.inherit()
            self._renamed(self._slot.name)
            self._name = self._slot.name
            self._enter()
        if notice is not None:
            self._notified()
        if time.monotonic() - self._beaten_at >= BEAT_SECONDS:
            self._beat()
        if time.monotonic() - self._looked_at > TAKE_OVER_SECONDS * random.uniform(0.8, 1.2):  # noqa: S311 - jitter
            self._looked_at = time.monotonic()
            is_steady = self._looked_at - self._steady_since > takeover.STALLED_SECONDS
            if self._take_over.look(self._id, judges_beats=is_steady):
                self._notified()
            self._look_at_self(self._slot)

    def _beat(self) -> None:
        wishes = self._store.workers.beat(self._slot, self._id, self._load())
        if wishes is None:
            _log.warning("%s was late and counts as lost: what it did goes on elsewhere", self._name)
            self._enter()
            wishes = Wishes(drain=False, paused=frozenset())
        if (
            time.monotonic() - self._beaten_at > takeover.STALLED_SECONDS / 2
        ):  # we stood still, or did not reach Postgres
            self._steady_since = time.monotonic()
        self._beaten_at = time.monotonic()
        self._wished(wishes)
