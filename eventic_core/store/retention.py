"""What retention looks at and removes: ended runs, past versions, deleted records.

Owns what must stay whatever a rule says, because something unfinished needs it. Who decides what else is to go is
`operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_TABLES = statement("retention_tables")
_TURN = statement("retention_turn")
_OPEN = statement("part_unfinished_runs").strip()
_HORIZON = statement("retention_horizon", open=_OPEN)
_HELD = statement("retention_held", open=_OPEN)
_PINS = statement("retention_pins", open=_OPEN)
_HOLD_WORKFLOWS = statement("retention_hold_workflows")
_WORKFLOWS = statement("retention_workflows")
_FAMILY = statement("retention_family")
_REMOVE_WORKFLOWS = statement("retention_remove_workflows")
_REMOVE_DATASOURCE = statement("retention_remove_datasource", table="datasource_outputs")
_RUNS = statement("retention_runs")
_RUN_FAMILY = statement("retention_run_family")
_RUN_PARTS = statement("retention_run_parts")
_CLOSE_RUNS = statement("retention_close_runs")
_CLOSE_PARTS = statement("retention_close_parts")
_REMOVE_RECORDS = statement("retention_remove_records")
_HOLD_RUNS = (statement("retention_hold_counters"), statement("retention_hold_runs"))
_TOMBSTONES = statement("retention_tombstones", held="")
_HELD_TOMBSTONES = statement("retention_tombstones", held="for update of r")
_REMOVE_VERSIONS = statement("retention_versions")
_REMOVE_HISTORY = statement("retention_history", gone=statement("part_history_gone").strip())
_COUNT_HISTORY = statement("retention_history", gone="gone as (select id from passed)")
_FLOORS = statement("history_floors")

FIRST: Final = UUID(int=0)
_ALL_HEADS: Final = 2**31 - 1


class Horizon(NamedTuple):
    """The run that has been unfinished for the longest, and since when it may ask for what was current."""

    run_id: str
    since: datetime


class Family(NamedTuple):
    """A run with all that it started.

    Attributes:
        ids: Their ids, the root's first.
        is_free: Whether all of them may go.
    """

    root: str
    ids: list[str]
    is_free: bool


@dataclass(frozen=True, slots=True)
class Passed:
    """A page of past versions.

    Attributes:
        count: How many there were, or were removed.
        after: The record to go on after; `None` if no record was left to look at.
    """

    count: int
    after: UUID | None


class RetentionTable:
    """Reads and removes on one database; each call joins the transaction it is given, or reads by itself.

    Attributes:
        has_workflows: Whether there are runs at all: a database in which nobody worked yet has no tables for them.
        has_datasource: Whether datasources of DBOS keep checkpoints here.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        ((self.has_workflows, self.has_datasource),) = store.database.fetch(_TABLES, ())

    def take_turn(self, tx: PostgresTransaction) -> None:
        """Wait for other batches of retention to end; from here on the transaction may delete versions."""
        tx.fetch(_TURN, ())

    def horizon(self) -> Horizon | None:
        """Find the run that has been unfinished for the longest; `None` if all have ended."""
        rows = self._store.database.fetch(_HORIZON, ()) if self.has_workflows else ()
        return Horizon._make(rows[0]) if rows else None

    def held(self) -> list[str]:
        """List the ended runs that unfinished ones name, and whose results they may ask for."""
        rows = self._store.database.fetch(_HELD, ()) if self.has_workflows else ()
        return [run_id for (run_id,) in rows]

    def pins(self) -> dict[UUID, int]:
        """List the records of which unfinished runs name versions, each with the oldest of these."""
        return dict(self._store.database.fetch(_PINS, ())) if self.has_workflows else {}

    # -- runs of workflows

    def workflows(
        self,
        *,
        name: str | None,
        statuses: Sequence[str],
        before: datetime,
        after: tuple[int, str],
        limit: int,
        tx: PostgresTransaction | None = None,
    ) -> list[tuple[str, int]]:
        """Read a page of ended runs that no other run of the table started: id and milliseconds of creation."""
        values = {"name": name, "statuses": list(statuses), "before": _ms(before), "limit": limit}
        if not self.has_workflows:
            return []
        rows = (tx or self._store.database).fetch(_WORKFLOWS, {**values, "after_at": after[0], "after": after[1]})
        return [(run_id, created_ms) for run_id, created_ms in rows]

    def families(
        self, roots: Sequence[str], *, before: datetime, held: Sequence[str], tx: PostgresTransaction | None = None
    ) -> list[Family]:
        """Read runs with all that they started, in the order given; those that are not stored are left out."""
        if not self.has_workflows:
            return []
        values = {"roots": list(roots), "before": _ms(before), "held": list(held)}
        return _families(roots, (tx or self._store.database).fetch(_FAMILY, values))

    def hold_workflows(self, ids: Sequence[str], tx: PostgresTransaction) -> set[str]:
        """Have nobody begin runs anew until the transaction ends; gives those that somebody has begun anew already."""
        return {run_id for (run_id,) in tx.fetch(_HOLD_WORKFLOWS, (list(ids),))}

    def remove_workflows(self, ids: Sequence[str], tx: PostgresTransaction) -> int:
        """Remove ended runs with all that belongs to them; gives how many there were."""
        gone = tx.fetch(_REMOVE_WORKFLOWS, (list(ids),))
        if self.has_datasource and gone:
            tx.fetch(_REMOVE_DATASOURCE, ([run_id for (run_id,) in gone],))
        return len(gone)

    def remove_app_versions(self, before: datetime, tx: PostgresTransaction) -> int:
        """Remove versions of applications of which no run is kept and that no worker has; gives how many there were."""
        return len(tx.fetch(_REMOVE_VERSIONS, (_ms(before),))) if self.has_workflows else 0

    # -- runs of automations and DAGs

    def runs(
        self,
        *,
        name: str | None,
        statuses: Sequence[str],
        before: datetime,
        after: UUID,
        limit: int,
        tx: PostgresTransaction | None = None,
    ) -> list[UUID]:
        """Read a page of ended runs of automations and DAGs that no job started."""
        values = {"name": name, "statuses": list(statuses), "before": before, "after": after, "limit": limit}
        return [run_id for (run_id,) in (tx or self._store.database).fetch(_RUNS, values)]

    def run_families(
        self, roots: Sequence[UUID], *, before: datetime, held: Sequence[str], tx: PostgresTransaction | None = None
    ) -> list[tuple[Family, dict[str, list[str]]]]:
        """Read runs with those that their jobs started, nearest first, and the workflows of all attempts of each."""
        values = {"roots": list(roots), "before": before, "held": list(held)}
        rows = (tx or self._store.database).fetch(_RUN_FAMILY, values)
        workflows: dict[str, dict[str, list[str]]] = {}
        for root, run_id, _class_type, attempts, _is_free in rows:
            names = [f"{run_id}:{attempt}" for attempt in range(2, attempts + 1)]
            workflows.setdefault(str(root), {})[str(run_id)] = [str(run_id), *names]
        found = _families([str(root) for root in roots], [(str(r), str(i), free) for r, i, _, _, free in rows])
        return [(family, workflows[family.root]) for family in found]

    def hold_runs(self, ids: Sequence[str], tx: PostgresTransaction) -> None:
        """Have nobody change runs, or do them again, until the transaction ends."""
        for sql in _HOLD_RUNS:
            tx.fetch(sql, {"ids": [UUID(run_id) for run_id in ids]})

    def close_runs(self, ids: Sequence[str], tx: PostgresTransaction) -> None:
        """Forget how far ended runs were: nobody can do them again from here on."""
        for sql in (_CLOSE_RUNS, _CLOSE_PARTS):
            tx.fetch(sql, {"ids": [UUID(run_id) for run_id in ids]})

    def run_parts(self, run_id: str, *, limit: int, tx: PostgresTransaction) -> list[tuple[UUID, int]]:
        """Read the records that are parts of a run, so many: id and number of versions."""
        rows = tx.fetch(_RUN_PARTS, {"run": run_id, "limit": limit})
        return [(record_id, versions) for record_id, versions in rows]

    # -- records

    def past(
        self,
        *,
        classes: Sequence[str] | None,
        before: datetime,
        after: UUID,
        heads: int | None,
        limit: int,
        pins: Mapping[UUID, int],
        tx: PostgresTransaction | None = None,
    ) -> Passed:
        """Count past versions that may go, so many at most; in a transaction remove them.

        Of `heads` records after one, in the order of their ids; `None` is all. Of records with a pin, only older ones.
        """
        values = {"classes": None if classes is None else list(classes), "before": before, "after": after}
        counts = {"heads": heads or _ALL_HEADS, "limit": limit, "pinned": list(pins), "pins": list(pins.values())}
        sql = _COUNT_HISTORY if tx is None else _REMOVE_HISTORY
        ((count, last_head, last_gone),) = (tx or self._store.database).fetch(sql, {**values, **counts})
        if count >= limit:  # the last of them may have more: look at it again
            return Passed(count, UUID(int=last_gone.int - 1))
        return Passed(count, last_head)

    def tombstones(
        self,
        *,
        classes: Sequence[str] | None,
        before: datetime,
        after: UUID,
        limit: int,
        record_id: UUID | None = None,
        tx: PostgresTransaction | None = None,
    ) -> list[tuple[UUID, int]]:
        """Read a page of deleted records that may go: id and number of versions; in a transaction they are held."""
        values = {"classes": None if classes is None else list(classes), "before": before, "after": after}
        sql = _TOMBSTONES if tx is None else _HELD_TOMBSTONES
        rows = (tx or self._store.database).fetch(sql, {**values, "limit": limit, "id": record_id})
        return [(found, versions) for found, versions in rows]

    def remove_records(self, ids: Sequence[UUID], tx: PostgresTransaction) -> tuple[int, int]:
        """Remove records with all their versions; gives how many of both there were."""
        ((count, versions),) = tx.fetch(_REMOVE_RECORDS, {"ids": list(ids)})
        return count, versions

    def history_floors(self, classes: Sequence[str]) -> dict[str, datetime]:
        """Tell since when the past of classes is whole; those of which nothing was removed are left out."""
        return dict(self._store.database.fetch(_FLOORS, (list(classes),)))


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _families(roots: Sequence[str], rows: Sequence[tuple[str, str, bool]]) -> list[Family]:
    members: dict[str, list[str]] = {root: [root] for root in roots}
    free: dict[str, bool] = {}
    for root, run_id, is_free in rows:
        if run_id != root:
            members[root].append(run_id)
        free[root] = free.get(root, True) and is_free
    return [Family(root, members[root], free[root]) for root in roots if root in free]
