"""An attempt at an item as its group makes it: traced, counted, and made again where records were written meanwhile."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.automation.item import Attempts, Outcome
from eventic_core.automation.steering import ItemContext
from eventic_core.errors import StoreUnavailable
from eventic_core.records.port import StaleWrite
from eventic_core.runtime import counts, tracing

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.automation.outcomes import ItemExecutionVersions
    from eventic_core.automation.slice import Slice
    from eventic_core.records.stamp import Origin
    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")
CONFLICTS = 20
"""So often an attempt is made again because of what others wrote."""


class GroupAttempts:
    """The attempts of one claim of a group.

    Args:
        assignment: The claim.
        automation: Whose function is called.
        origin: Whose changes are what it writes.
        collected: The slice in which an attempt with a transaction of its own stores its end.
    """

    def __init__(
        self, assignment: Assignment, automation: DeclaredAutomation[Any, Any], origin: Origin, collected: Slice
    ) -> None:
        self._assignment = assignment
        self._automation = automation
        self._origin = origin
        self._slice = collected
        self._run_id = UUID(assignment.values["run"])
        invoke = assignment.invoke if automation.is_async else _directly
        self._attempts = Attempts(automation, assignment.store, origin, invoke)
        self._parts: dict[str, UUID] = {}
        self._tried: deque[str] = deque()
        """How attempts ended that are not counted yet: not one by one, for threads would wait for each other."""

    def make(self, item: ItemExecutionVersions, began_at: datetime | None = None) -> Outcome:
        """Make an attempt, which began just now if there is a moment, as a span of the trace."""
        with tracing.span(
            "item",
            self._automation.name,
            run__id=self._run_id,
            item__number=item.number,
            record__id=item.item_id,
            attempt=item.attempts,
            correlation_id=self._origin.correlation_id,
        ):
            outcome = self._called(item, began_at)
            tracing.failed(outcome.error)
        self._tried.append("done" if outcome.error is None else "failed")
        return outcome

    def _called(self, item: ItemExecutionVersions, began_at: datetime | None) -> Outcome:
        """Call the function, again where records it wrote were written by others meanwhile."""
        begun = item.unsaved
        context = ItemContext(
            run_id=self._run_id,
            batch_execution_id=self._part_id(item),
            item_id=item.item_id,
            item_execution_id=item.id,
            number=item.number,
            attempt=item.attempts,
            correlation_id=self._origin.correlation_id,
            idempotency_key=f"{self._assignment.values['run']}:{item.number}",
        )

        def commit(outcome: Outcome, tx: PostgresTransaction) -> None:
            item.end(outcome, self._automation)
            self._slice.store_in(item, tx)

        conflict: Exception | None = None  # nothing but conflicts counts: while Postgres is away, it waits
        left = CONFLICTS
        while left:
            item.forget(but=begun)
            try:
                outcome = self._attempts.make(item.payload, context, commit, began_at)
            except StaleWrite as error:
                conflict = error.__cause__ if isinstance(error.__cause__, Exception) else error
                left, began_at = left - 1, None
                time.sleep(random.uniform(0, 0.005 * (CONFLICTS - left)))  # noqa: S311 - so that two do not meet again
                counts.CONFLICTS.add("item")
            except StoreUnavailable as error:
                _log.warning("item %s waits for Postgres: %s", item.number, error, extra={"action": "wait"})
                if self._assignment.is_stopping():
                    raise
                began_at = None
                time.sleep(1)
            else:
                if not outcome.is_stored:
                    item.forget(but=begun)  # an end that its own transaction could not store
                return outcome
        item.forget(but=begun)
        return Outcome(error=conflict)

    def _part_id(self, item: ItemExecutionVersions) -> UUID:
        text = item.document["batch_execution_id"]
        known = self._parts.get(text)
        if known is None:
            known = self._parts[text] = UUID(text)
        return known

    def count(self) -> None:
        """Tell metrics of the attempts that were made since."""
        found: Counter[str] = Counter()
        while self._tried:
            found[self._tried.popleft()] += 1
        for how, count in found.items():
            counts.ATTEMPTS.add("item", how, by=count)


def _directly(function: Callable[..., Any], /, *args: Any) -> Any:
    """Call a function that is not async, of which the worker need not be asked for each item."""
    return function(*args)
