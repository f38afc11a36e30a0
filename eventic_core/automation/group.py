"""A group of items, done by one worker: attempts one after the other, stored in slices, one statement each.

A slice holds what the attempts of about half a second wrote, and their items' moves, with the group's checkpoint and
the run's counters. So after a crash the items of the open slice are done again and no others. A group whose worker died
more than once, and every group of an automation with `checkpoint="item"`, notes each attempt before it makes it: then
an item that kills its worker is known, and given up after its attempts.
"""

from __future__ import annotations

import heapq
import logging
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING
from uuid import UUID

from eventic_core.automation.declared import ITEMS, find
from eventic_core.automation.group_attempts import CONFLICTS, GroupAttempts
from eventic_core.automation.group_items import GroupItems
from eventic_core.automation.item import Outcome
from eventic_core.automation.slice import Refused, Slice
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import InvalidStateError, NotSerialisable, VersionConflict
from eventic_core.records import conflicts
from eventic_core.records.port import StaleWrite, Work
from eventic_core.records.stamp import Origin
from eventic_core.runtime import counts
from eventic_core.runtime.journal import patiently
from eventic_core.store.groups import GroupTable
from eventic_core.store.handlers import call_payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    from eventic_core.automation.outcomes import ItemExecutionVersions
    from eventic_core.runtime.performing import Assignment

_log = logging.getLogger("eventic")
S = ExecutionStatus


class Group:
    """One claim of a group."""

    def __init__(self, assignment: Assignment) -> None:
        values = assignment.values
        self._assignment = assignment
        self._values = values
        self._store = assignment.store
        self._table = GroupTable(assignment.store)
        self._run_id = UUID(values["run"])
        self._automation = find(values["automation"])
        self._origin = Origin(
            actor=values["actor"], correlation_id=values["correlation_id"], workflow_id=values["workflow"]
        )
        self._is_careful = self._automation.checkpoint == "item" or assignment.deaths > 0
        self._state, last_step = patiently(lambda: self._table.begin(self._run_id, assignment.run_id))
        self._slice = Slice(self._store, assignment.run_id, assignment.owner, last_step)
        self._items = GroupItems(values, self._automation, self._origin, self._table)
        self._attempts = GroupAttempts(assignment, self._automation, self._origin, self._slice)
        self._again: list[tuple[float, int, ItemExecutionVersions]] = []
        self._late: list[tuple[float, ItemExecutionVersions]] = []
        self._granted = 0

    # -- the whole

    def run(self) -> None:
        """Do the items that are still to be done; the group is complete, or has been given back, when this returns.

        Raises:
            OwnershipLost: Somebody else took it over.
        """
        if not self._goes_on(self._state):
            return
        items = self._items.read(is_new=self._slice.next_step == 1 and not self._is_careful)
        gone = self._items.gone(items)
        try:
            done = self._do_all(items) if self._automation.window == 1 or self._is_careful else self._overlap(items)
            if done and self._store_rest(ends_group=gone is None) and not self._slice.ended_group:
                self._table.complete(self._run_id, self._assignment.run_id, self._assignment.owner, gone=gone)
        finally:
            self._attempts.count()

    def _goes_on(self, state: str | None = None) -> bool:
        """Tell whether the run goes on, in the state it was just found in; if not, this group has been dealt with."""
        assignment = self._assignment
        while True:
            if assignment.is_stopping():
                self._store.work.put_back([(assignment.run_id, assignment.owner)])
                return False
            state = state or self._table.run_state(self._run_id)
            if state == "running":
                return True
            if state != "paused":
                self._table.complete(self._run_id, assignment.run_id, assignment.owner)
                return False
            if self._table.park(self._run_id, assignment.run_id, assignment.owner):
                return False
            state = None  # it was resumed meanwhile

    def _store_slice(self) -> bool:
        """Store what is collected; tells whether the run goes on, and this group with it."""
        self._put_off()
        self._flush()
        return self._goes_on()

    def _store_rest(self, *, ends_group: bool) -> bool:
        """Store what is left, once all is done; tells whether the run goes on if items had to be done once more."""
        self._put_off()
        self._flush(ends_group=ends_group)
        while self._again or self._late:  # items that were refused, and failed when they were done again
            if not self._do_again() or not self._store_slice():
                return False
        return True

    def _put_off(self) -> None:
        """Have the items done by another group that are to be tried again later."""
        late, self._late = self._late, []
        if late:
            self._slice.work.append(self._later(late))

    def _flush(self, *, ends_group: bool = False) -> None:
        """Store what is collected, and do those items again, one by one, that are refused."""
        self._attempts.count()
        for refused in self._slice.store(ends_group=ends_group):
            self._redo(refused)

    # -- one after the other

    def _do_all(self, items: Sequence[ItemExecutionVersions]) -> bool:
        for item in items:
            if self._is_careful and item.status == S.PROCESSING and not self._survived(item):
                continue
            if self._slice.is_full(self._automation) and not self._store_slice():
                return False
            if not self._wait_for_turn():
                return False
            self._do(item)
        return self._do_again()

    def _do_again(self) -> bool:
        """Make the retries that are due soon, as they come due."""
        while self._again:
            due, _number, item = self._again[0]
            wait_seconds = due - time.monotonic()
            if wait_seconds > 0 or self._slice.is_full(self._automation) or self._slice.holds_work_of(item):
                # With what the item wrote, so that it can be told from what its next attempt writes.
                if not self._store_slice():
                    return False
                time.sleep(min(max(wait_seconds, 0), 0.5))
                continue  # it may be refused, and done again already
            heapq.heappop(self._again)
            if not self._wait_for_turn():
                return False
            self._do(item)
        return True

    def _do(self, item: ItemExecutionVersions) -> None:
        began_at: datetime | None = item.begin()
        if self._is_careful:
            self._slice.add(item, Outcome())
            if self._slice.store():
                return  # somebody moved it meanwhile
            began_at = None
        self._end(item, self._attempts.make(item, began_at))

    def _end(self, item: ItemExecutionVersions, outcome: Outcome) -> None:
        """Collect an attempt, and see to the next one if there is to be one."""
        if not outcome.is_stored and self._slice.clashes(outcome):
            self._flush()  # what another item wrote first, then this one on top of it
            outcome = self._attempts.make(item)
        if outcome.is_stored:
            item.stored()
        else:
            try:
                item.end(outcome, self._automation)
            except (ValueError, OverflowError) as error:
                problem = NotSerialisable(f"What came of it cannot be stored: {error}")
                outcome = Outcome(error=problem, began_at=outcome.began_at)
                item.end(outcome, self._automation)
            outcome.error = None  # whose traceback would keep this group in memory until a collector comes
            self._slice.add(item, outcome)
        if item.following is None:
            return
        counts.RETRIES.add("item")
        if item.following.late:
            self._late.append((item.following.due, item))
        else:
            heapq.heappush(self._again, (item.following.due, item.number, item))

    def _redo(self, refused: Refused) -> None:
        """Do an item by itself that was refused with others: what it wrote conflicts, or somebody moved it."""
        item, error = refused
        self._again = [entry for entry in self._again if entry[2] is not item]
        heapq.heapify(self._again)
        self._late = [entry for entry in self._late if entry[1] is not item]
        for attempts_left in reversed(range(CONFLICTS + 1)):
            items = self._items.read(range(item.number, item.number + 1))
            if not items:
                return  # somebody else has ended it
            items[0].begin()
            outcome = Outcome(error=error)
            is_moved = item.is_fresh and not items[0].is_fresh
            if attempts_left and (is_moved or isinstance(error, StaleWrite | VersionConflict | InvalidStateError)):
                outcome = self._attempts.make(items[0])
            self._end(items[0], outcome)
            again = self._slice.store()
            if not again:
                return
            item, error = again[0]
            if isinstance(error, StaleWrite) and outcome.appends:
                error = conflicts.of_sealed(self._store, outcome.appends, None)
        _log.error("item %s: its outcome could not be stored: %r", item.number, error, extra={"action": "refused"})

    def _survived(self, item: ItemExecutionVersions) -> bool:
        """Deal with an item over which a worker died; tells whether it may be tried again."""
        survived = item.survived(is_chance=self._assignment.is_chance)
        if not survived:
            self._slice.add(item, Outcome())
        return survived

    # -- overlapping

    def _overlap(self, items: Sequence[ItemExecutionVersions]) -> bool:
        """Make attempts at several items at a time: of an async function, whose items wait rather than compute."""
        window = self._automation.window
        waiting = iter(items)
        running: dict[Future[Outcome], ItemExecutionVersions] = {}
        with ThreadPoolExecutor(window, thread_name_prefix="eventic-items") as threads:
            goes_on = True
            while goes_on or running:
                while goes_on and len(running) < window and (item := self._next(waiting)) is not None:
                    if not self._wait_for_turn():
                        goes_on = False
                        break
                    began_at = item.begin()
                    running[threads.submit(copy_context().run, self._attempts.make, item, began_at)] = item
                if not running:
                    if goes_on and self._again:
                        goes_on = self._store_slice()
                        time.sleep(0.05)
                        continue
                    break
                ended, _ = wait(running, timeout=self._automation.group_seconds, return_when=FIRST_COMPLETED)
                for future in ended:
                    self._end(running.pop(future), future.result())
                if goes_on and self._slice.is_full(self._automation):
                    goes_on = self._store_slice()
        if not goes_on:
            self._flush()
        return goes_on

    def _next(self, waiting: Iterator[ItemExecutionVersions]) -> ItemExecutionVersions | None:
        if self._is_again_due() and self._slice.holds_work_of(self._again[0][2]):
            self._flush()  # which may refuse it and do it again
        return heapq.heappop(self._again)[2] if self._is_again_due() else next(waiting, None)

    def _is_again_due(self) -> bool:
        return bool(self._again) and self._again[0][0] <= time.monotonic()

    # -- limits

    def _wait_for_turn(self) -> bool:
        """Wait until the rate lets the next item begin; tells whether the run still goes on."""
        rate = self._automation.rate
        if rate is None:
            return True
        if self._granted == 0:
            self._granted = max(1, min(int(rate[0] / rate[1] / 10), 100))
            seconds = self._table.reserve(self._automation.name, self._granted, rate=rate)
            while seconds > 0:
                if not self._store_slice():
                    return False
                time.sleep(min(seconds, 0.5))
                seconds -= 0.5
        self._granted -= 1
        return True

    def _later(self, late: Sequence[tuple[float, ItemExecutionVersions]]) -> Work:
        """Make the group that does items again when it is time."""
        numbers = sorted(item.number for _due, item in late)
        first_due = min(due for due, _item in late)
        values = {**self._values, "first": numbers[0], "last": numbers[-1], "only": numbers, "sequence": None}
        delay = max(first_due - time.monotonic(), 0.001)
        group_id = f"{self._assignment.run_id}.{self._slice.next_step}"
        queue = self._automation.queue_name
        payload = call_payload(values)
        return Work(group_id, ITEMS, queue, payload, delay_seconds=delay, parent=self._values["workflow"])
