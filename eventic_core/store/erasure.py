"""What erasure reads and overwrites: documents of versions, and payloads of runs wherever they are kept.

Owns the list of places. What stands where values stood is decided in `operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from eventic_core.store.retention import RetentionTable
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_PARTS = statement("erase_parts")
_VERSION = statement("erase_version")
_OPEN = statement("erase_open")
_HOLD_ENDED = statement("erase_hold_ended")
_HOLD_RECORD = statement("erase_hold_record")
_UNFINISHED = statement("erase_unfinished")


@dataclass(frozen=True, slots=True)
class Place:
    """A column that holds payloads, and the one that says of which run."""

    table: str
    column: str
    owner: str = "workflow_uuid"
    type: str = "text"

    @property
    def is_of_run(self) -> bool:
        """Whether its owner is a run."""
        return self.owner in {"workflow_uuid", "workflow_id", "destination_uuid", "run_id"}

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


_WORKFLOW_PLACES: Final = (
    *(Place("dbos.workflow_status", column) for column in ("inputs", "output", "error")),
    Place("dbos.workflow_status", "attributes", type="jsonb"),
    Place("dbos.workflow_input", "inputs"),
    *(Place("dbos.workflow_output", column) for column in ("output", "error")),
    *(Place("dbos.operation_outputs", column) for column in ("output", "error")),
    *(Place(f"dbos.{table}", "value") for table in ("workflow_events", "workflow_events_history", "streams")),
    Place("dbos.notifications", "message", "destination_uuid"),
)
_DATASOURCE_PLACES: Final = tuple(
    Place("dbos.datasource_outputs", column, "workflow_id") for column in ("output", "error")
)
_OWN_PLACES: Final = (
    *(Place("eventic.dag_runs", column, "run_id", "jsonb") for column in ("parameters", "plan")),
    Place("eventic.dead_letters", "error", "record_id", "jsonb"),
    Place("eventic.schedules", "last_error", "schedule_id"),
)


class Found(NamedTuple):
    """A payload: where it is, whose, and as text."""

    place: Place
    row: str
    owner: str
    text: str


class Part(NamedTuple):
    """A version of an item, of an execution, or of a run.

    Attributes:
        run_id: The run it is part of.
        unfinished: The unfinished run that works with it.
    """

    id: UUID
    version: int
    text: str
    class_type: str
    run_id: str | None
    unfinished: str | None


class ErasureTable:
    """Reads and overwrites on one database, in the transaction it is given."""

    def __init__(self, store: PostgresStore, tx: PostgresTransaction) -> None:
        self._tx = tx
        self.retention = RetentionTable(store)
        self._places = _OWN_PLACES
        if self.retention.has_workflows:
            self._places += _WORKFLOW_PLACES
        if self.retention.has_datasource:
            self._places += _DATASOURCE_PLACES

    def hold(self, record_id: UUID) -> None:
        """Wait for other erasures and batches of retention to end; from here on nobody writes the record."""
        self.retention.take_turn(self._tx)
        self._tx.fetch(_HOLD_RECORD, (record_id,))

    def payloads(self, needles: Sequence[str], runs: Sequence[str] = ()) -> list[Found]:
        """Find payloads that hold one of the texts, and all of some runs; nobody changes them until we are done."""
        return [found for place in self._places for found in self._find(place, needles, runs)]

    def rewrite(
        self, needles: Sequence[str], runs: Sequence[str], change: Callable[[Found], str | None]
    ) -> dict[str, int]:
        """Overwrite such payloads with what `change` makes of them, if not `None`; gives how many where."""
        counts: dict[str, int] = {}
        for place in self._places:  # one after the other, for a row that was changed is another one by its place
            put = statement("erase_put", table=place.table, column=place.column, type=place.type)
            for found in self._find(place, needles, runs):
                text = change(found)
                if text is not None:
                    self._tx.fetch(put, (text, found.row))
                    counts[str(place)] = counts.get(str(place), 0) + 1
        return counts

    def _find(self, place: Place, needles: Sequence[str], runs: Sequence[str]) -> list[Found]:
        sql = statement("erase_find", table=place.table, column=place.column, owner=place.owner)
        rows = self._tx.fetch(sql, {"needles": list(needles), "runs": list(runs)})
        return [Found(place, *row) for row in rows]

    def parts(self, needles: Sequence[str], runs: Sequence[str] = ()) -> list[Part]:
        """Find versions of items, executions and runs that hold one of the texts, and of jobs of some runs."""
        rows = self._tx.fetch(_PARTS, {"needles": list(needles), "runs": list(runs)})
        return [Part._make(row) for row in rows]

    def overwrite(self, record_id: UUID, documents: Sequence[tuple[int, str]]) -> None:
        """Overwrite the documents of versions of one record."""
        self._tx.fetch(_OPEN, (record_id,))
        for version, text in documents:
            self._tx.fetch(_VERSION, (text, record_id, version))
        self._tx.fetch(_OPEN, ("",))

    def unfinished(self, runs: Sequence[str]) -> list[str]:
        """Tell which of some runs of workflows are unfinished; the others stay ended."""
        if not self.retention.has_workflows:
            return []
        self._tx.fetch(_HOLD_ENDED, (list(runs),))
        return [run_id for (run_id,) in self._tx.fetch(_UNFINISHED, (list(runs),))]
