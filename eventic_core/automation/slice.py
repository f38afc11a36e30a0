"""A slice: what some attempts wrote and their items' moves, collected until one statement stores it all."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.errors import Conflict, Invalid, NotSerialisable
from eventic_core.records.port import AlreadyDone, Checkpoint, StaleWrite
from eventic_core.runtime.journal import now_ms, patiently

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.automation.item import Outcome
    from eventic_core.automation.outcomes import ItemExecutionVersions
    from eventic_core.records.port import Append, Work
    from eventic_core.store import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction


class Refused(NamedTuple):
    """An item whose versions, or those it wrote, were refused, and why."""

    item: ItemExecutionVersions
    error: Exception


class _Entry(NamedTuple):
    """An item, and the attempts at it, of which there are several if it is retried at once."""

    item: ItemExecutionVersions
    outcomes: list[Outcome]


class Slice:
    """What is to be stored next of a group, as a step of it.

    Args:
        store: Where.
        group_id: The group, whose steps the slices are.
        owner: The token of the claim: a zombie's slice is refused.
        last_step: The last one the group has.
    """

    def __init__(self, store: PostgresStore, group_id: str, owner: str, last_step: int) -> None:
        self.work: list[Work] = []
        self._store = store
        self._group_id = group_id
        self._owner = owner
        self._entries: dict[int, _Entry] = {}
        self._written: set[Any] = set()
        self._began = time.monotonic()
        self._began_ms = now_ms()
        self._lock = threading.RLock()
        self.next_step = last_step + 1
        self.ended_group = False
        """Whether the group is done, with what was stored last."""

    def add(self, item: ItemExecutionVersions, outcome: Outcome) -> None:
        """Collect an attempt and its item's moves."""
        with self._lock:
            if not self._entries:
                self._began, self._began_ms = time.monotonic(), now_ms()
            known = self._entries.get(item.number)
            if known is None:
                self._entries[item.number] = _Entry(item, [outcome])
            else:
                known.outcomes.append(outcome)
            if outcome.appends:
                self._written.update(append.id for append in outcome.appends)

    def clashes(self, outcome: Outcome) -> bool:
        """Tell whether an attempt wrote a record that another one of the slice wrote too."""
        return bool(outcome.appends) and any(append.id in self._written for append in outcome.appends)

    def holds_work_of(self, item: ItemExecutionVersions) -> bool:
        """Tell whether it holds what an attempt at an item wrote or enqueued."""
        entry = self._entries.get(item.number)
        return entry is not None and any(outcome.appends or outcome.work for outcome in entry.outcomes)

    def is_full(self, automation: DeclaredAutomation[Any, Any]) -> bool:
        """Tell whether it is time to store it."""
        if not self._entries:
            return False
        if automation.checkpoint == "item" or len(self._entries) >= automation.group_size:
            return True
        return time.monotonic() - self._began >= automation.group_seconds

    def store(self, *, ends_group: bool = False) -> list[Refused]:
        """Store what is collected, all at once or else each item by itself; gives those that are refused even so.

        Args:
            ends_group: Whether the group is done with it, if all of it is stored at once; see `ended_group`.

        Raises:
            OwnershipLost: The group is somebody else's; nothing is stored.
        """
        with self._lock:
            entries, self._entries, self._written = list(self._entries.values()), {}, set()
            work, self.work = self.work, []
            if not entries and not work:
                return []
            counts = any(entry.item.has_ended for entry in entries)
            if self._try(entries, work, ends_group=ends_group and counts) is None:
                return []
            if work:
                self._try([], work)
            tried = [(entry.item, self._try([entry], [])) for entry in entries]
            return [Refused(item, error) for item, error in tried if error is not None]

    def store_in(self, item: ItemExecutionVersions, tx: PostgresTransaction) -> None:
        """Store an item's moves in the transaction of its own attempt."""
        with self._lock:
            self._store.append(item.versions, tx, checkpoint=self._checkpoint([item]))
            self.next_step += 1

    def _try(self, entries: Sequence[_Entry], work: Sequence[Work], *, ends_group: bool = False) -> Exception | None:
        """Store some entries in one statement; gives the reason if none of them is stored."""
        appends: list[Append] = []
        all_work = list(work)
        for item, outcomes in entries:
            for outcome in outcomes:
                appends += outcome.appends
                all_work += outcome.work
            appends += item.versions
        checkpoint = self._checkpoint([entry.item for entry in entries])
        try:
            if appends:
                patiently(
                    lambda: self._store.append(
                        appends, work=all_work, checkpoint=checkpoint, told=False, ends_group=ends_group
                    )
                )
            else:
                patiently(lambda: self._store.enqueue(all_work, checkpoint=checkpoint))
        except AlreadyDone:
            pass  # a statement whose reply was lost: it is stored
        except (StaleWrite, Conflict, Invalid) as error:
            return error
        except ValueError as error:  # a number too long to be read again, say
            return NotSerialisable(f"What came of it cannot be stored: {error}")
        self.next_step += 1
        self.ended_group = ends_group
        for entry in entries:
            entry.item.stored()
        return None

    def _checkpoint(self, items: Sequence[ItemExecutionVersions]) -> Checkpoint:
        numbers = [item.number for item in items]
        name = f"items {min(numbers)} to {max(numbers)}" if numbers else "items to be done later"
        return Checkpoint(self._group_id, self._owner, self.next_step, name, "null", self._began_ms)
