"""What the batches of retention remove, for each kind of rule: the roots it looks at, page after page, and what goes.

A batch joins the open scope's transaction. Nothing is remembered but the place to go on from, so a sweep that is begun
again finds what is left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import UUID

from eventic_core.operations.retention import RUN_ENDS, WORKFLOW_ENDS, RetentionRule, What
from eventic_core.records import record_class
from eventic_core.records.editing import current_scope
from eventic_core.records.port import installed_store
from eventic_core.store.retention import FIRST, Family, RetentionTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_PAGE = 1000
"""Roots, or records, that are looked at in one go."""
_WHOLE = 50_000
"""Runs of one family that go in one transaction, however small the batches."""
_FRESH_SECONDS = 5.0
"""For how long what unfinished runs name is not read again."""
_VERY_FIRST = (-1, "")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch removed: things of the rule's kind, and rows; and whether there may be more."""

    count: int
    rows: int
    is_going_on: bool


class Sweep(Protocol):
    """One application of a rule."""

    held_by: str | None

    def count(self, limit: int) -> int:
        """Count what would go, so much at most."""
        ...

    def batch(self, rows: int) -> Batch:
        """Remove about so many rows, in the open scope's transaction."""
        ...


def table() -> RetentionTable:
    """Give what retention reads and removes, on the connected database."""
    return RetentionTable(cast("PostgresStore", installed_store()))


def turn(retention: RetentionTable) -> PostgresTransaction:
    """Give the open scope's transaction, in which it is our turn to remove."""
    scope = current_scope()
    assert scope is not None
    tx: Any = scope.direct_transaction()
    retention.take_turn(tx)
    return tx  # type: ignore[no-any-return]


def sweep_of(rule: RetentionRule, before: datetime) -> Sweep:
    """Make the sweep of a rule, for what was so before a moment."""
    match rule.what:
        case What.WORKFLOWS:
            return WorkflowSweep(rule.of, rule.statuses or WORKFLOW_ENDS, before)
        case What.RUNS:
            return RunSweep(rule.of, rule.statuses or RUN_ENDS, before)
        case What.HISTORY:
            return HistorySweep(classes_of(rule.of), before)
        case What.TOMBSTONES:
            return TombstoneSweep(classes_of(rule.of), before)


def classes_of(name: str | None) -> list[str] | None:
    """Name a class with the subclasses this process knows; `None` is every class."""
    if name is None:
        return None
    known = record_class.find_class(name)
    return [name] if known is None else [*record_class.family(known)]


def _horizon(retention: RetentionTable, before: datetime) -> tuple[datetime, str | None]:
    """Give the moment before which versions may go, and the unfinished run that makes it earlier than asked."""
    found = retention.horizon()
    return (before, None) if found is None or found.since >= before else (found.since, found.run_id)


class _Held:
    """The ended runs that unfinished ones name, read again every few seconds, for a sweep may take hours."""

    def __init__(self, retention: RetentionTable) -> None:
        self._table = retention
        self._read_at = -_FRESH_SECONDS
        self._ids: list[str] = []

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        if time.monotonic() - self._read_at >= _FRESH_SECONDS:
            self._ids, self._read_at = self._table.held(), time.monotonic()
        return self._ids


class WorkflowSweep:
    """Ended runs of workflows, with all that they started; children before the root, if they are very many.

    With a rule for all workflows, in the end also versions of applications of which no run is left.
    """

    def __init__(self, name: str | None, statuses: Sequence[str], before: datetime) -> None:
        self.held_by: str | None = None
        self._name, self._statuses, self._before = name, statuses, before
        self._table = table()
        self._held = _Held(self._table)
        self._after = _VERY_FIRST

    def _page(self, after: tuple[int, str], limit: int, tx: PostgresTransaction | None = None) -> list[tuple[str, int]]:
        return self._table.workflows(
            name=self._name, statuses=self._statuses, before=self._before, after=after, limit=limit, tx=tx
        )

    def count(self, limit: int) -> int:
        """Count roots and what they started."""
        count, after = 0, _VERY_FIRST
        while count < limit and (page := self._page(after, _PAGE)):
            found = self._table.families([root for root, _ in page], before=self._before, held=self._held.ids)
            count += sum(len(family.ids) for family in found if family.is_free)
            after = page[-1][1], page[-1][0]
        return count

    def batch(self, rows: int) -> Batch:
        """Remove whole families, or children of one that is too large."""
        tx = turn(self._table)
        page = self._page(self._after, min(rows, _PAGE), tx)
        families = self._table.families([root for root, _ in page], before=self._before, held=self._held.ids, tx=tx)
        free = {family.root: family for family in families if family.is_free}
        doomed: list[Family] = []
        size = 0
        for root, created_ms in page:
            found = free.get(root)
            if found is not None:
                size += len(found.ids)
                if doomed and size > rows:
                    break
                if len(found.ids) <= max(rows, _WHOLE):
                    doomed.append(found)
                elif root not in self._table.hold_workflows([root], tx):
                    # The root stays until nothing of it is left, and is found again until then.
                    return self._removed([Family(root, found.ids[1:][::-1][:rows], is_free=True)], tx)
            self._after = created_ms, root
        if not page and self._name is None:
            self._table.remove_app_versions(self._before, tx)
        return self._removed(doomed, tx, is_going_on=bool(page))

    def _removed(self, families: Sequence[Family], tx: PostgresTransaction, *, is_going_on: bool = True) -> Batch:
        """Remove families, but those of which somebody has begun a run anew since they were read."""
        begun = self._table.hold_workflows([run_id for family in families for run_id in family.ids], tx)
        free = [run_id for family in families if begun.isdisjoint(family.ids) for run_id in family.ids]
        gone = self._table.remove_workflows(free, tx) if free else 0
        return Batch(gone, gone, is_going_on=is_going_on)


class RunSweep:
    """Ended runs of automations and DAGs, with those their jobs started: their parts, their workflows, then they."""

    def __init__(self, name: str | None, statuses: Sequence[str], before: datetime) -> None:
        self.held_by: str | None = None
        self._name, self._statuses, self._before = name, statuses, before
        self._table = table()
        self._held = _Held(self._table)
        self._after = FIRST

    def _page(self, after: UUID, limit: int, tx: PostgresTransaction | None = None) -> list[UUID]:
        return self._table.runs(
            name=self._name, statuses=self._statuses, before=self._before, after=after, limit=limit, tx=tx
        )

    def _families(self, page: Sequence[UUID], tx: PostgresTransaction | None = None) -> list[tuple[Family, list[str]]]:
        """Read those of some runs that may go, with the runs their jobs started, and the workflows of the deepest."""
        before, held = self._before, self._held.ids
        found = []
        for family, workflows in self._table.run_families(page, before=before, held=held, tx=tx):
            attempts = [run_id for names in workflows.values() for run_id in names]
            parts = self._table.families(attempts, before=before, held=held, tx=tx) if family.is_free else []
            if family.is_free and all(part.is_free for part in parts):
                last = workflows[family.ids[-1]]
                leaves_first = [run_id for part in parts if part.root in last for run_id in reversed(part.ids)]
                found.append((family, leaves_first))
        return found

    def count(self, limit: int) -> int:
        """Count roots and the runs their jobs started."""
        count, after = 0, FIRST
        while count < limit and (page := self._page(after, _PAGE)):
            count += sum(len(family.ids) for family, _ in self._families(page))
            after = page[-1]
        return count

    def batch(self, rows: int) -> Batch:
        """Remove a run that has no children any more, or so many of its parts; its jobs are what names the children."""
        tx, runs = turn(self._table), self._table
        page = self._page(self._after, 1, tx)
        if not page:
            return Batch(0, 0, is_going_on=False)
        for family, _ in self._families(page, tx):
            runs.hold_runs(family.ids, tx)
        for family, workflow_ids in self._families(page, tx):  # read again: who did it again meanwhile has it
            runs.close_runs(family.ids, tx)
            parts = _up_to(rows, runs.run_parts(family.ids[-1], limit=rows, tx=tx))
            if parts:
                return Batch(0, runs.remove_records(parts, tx)[1], is_going_on=True)
            if workflow_ids:
                return Batch(0, runs.remove_workflows(workflow_ids[:rows], tx), is_going_on=True)
            return Batch(*runs.remove_records([UUID(family.ids[-1])], tx), is_going_on=True)
        self._after = page[0]
        return Batch(0, 0, is_going_on=True)


class HistorySweep:
    """Past versions, the oldest of each record first."""

    def __init__(self, classes: Sequence[str] | None, before: datetime) -> None:
        self._table = table()
        self._before, self.held_by = _horizon(self._table, before)
        self._classes = classes
        self._after = FIRST

    def count(self, limit: int) -> int:
        """Count versions."""
        pins = self._table.pins()
        found = self._table.past(
            classes=self._classes, before=self._before, after=FIRST, heads=None, limit=limit, pins=pins
        )
        return found.count

    def batch(self, rows: int) -> Batch:
        """Remove versions."""
        tx, pins = turn(self._table), self._table.pins()
        found = self._table.past(
            classes=self._classes, before=self._before, after=self._after, heads=rows, limit=rows, pins=pins, tx=tx
        )
        self._after = found.after or self._after
        return Batch(found.count, found.count, is_going_on=found.after is not None)


class TombstoneSweep:
    """Deleted records, with all their versions."""

    def __init__(self, classes: Sequence[str] | None, before: datetime, record_id: UUID | None = None) -> None:
        self._table = table()
        self._before, self.held_by = _horizon(self._table, before)
        self._classes, self._id = classes, record_id
        self._after = FIRST

    def _page(self, limit: int, tx: PostgresTransaction | None = None) -> list[tuple[UUID, int]]:
        return self._table.tombstones(
            classes=self._classes, before=self._before, after=self._after, limit=limit, record_id=self._id, tx=tx
        )

    def count(self, limit: int) -> int:
        """Count records."""
        return len(self._page(limit))

    def batch(self, rows: int) -> Batch:
        """Remove records."""
        tx = turn(self._table)
        doomed = _up_to(rows, self._page(rows, tx))
        if not doomed:
            return Batch(0, 0, is_going_on=False)
        count, versions = self._table.remove_records(doomed, tx)
        self._after = doomed[-1]
        return Batch(count, versions, is_going_on=True)


def _up_to(rows: int, found: Sequence[tuple[UUID, int]]) -> list[UUID]:
    """Take records while their versions fit into so many rows, and one at least."""
    taken: list[UUID] = []
    for record_id, versions in found:
        if taken and versions > rows:
            break
        taken.append(record_id)
        rows -= versions
    return taken
