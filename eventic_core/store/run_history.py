"""What runs wrote, read for `changes`, `diff` and `undo` of automations; and the unique keys an undo exchanges.

Owns the statements and their rows. Knows no record class: what a version means is the caller's business. Long answers
are streamed through a server-side cursor, on a transaction that only reads and so holds back no change feed.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from eventic_core.records.port import StoredVersion
from eventic_core.records.stamp import Stamp
from eventic_core.store.sql import COLUMNS, statement
from eventic_core.store.transaction import PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from uuid import UUID

    from eventic_core.records.port import Key
    from eventic_core.store.engine import Database

_CHANGES: Final = statement("run_changes", columns=COLUMNS)
_RECORDS: Final = statement("run_records")
_CLASSES: Final = statement("run_classes")
_SPANS: Final = statement("undo_spans")
_TOUCHES: Final = statement("undo_touches", columns=COLUMNS)
_BLOCKED: Final = statement("blocked_keys")
_FREE: Final = statement("free_keys")
_HEADS: Final = statement("heads", columns=COLUMNS)
_ITEMS: Final = statement("run_items")
_WRITES: Final = statement("item_writes")

_STREAM_ROWS: Final = 500
_WIDTH: Final = 4 + len(Stamp._fields)


class Span(NamedTuple):
    """What is in force of a run's writes of one record.

    Attributes:
        first: The first version in force; `None` if all were undone.
        head: The record's current version.
        others: How many versions after `first` neither the run nor an undo of it wrote.
    """

    id: UUID
    first: int | None
    head: int
    others: int


class ItemRow(NamedTuple):
    """An item of a run; `batch` counts the run's batch executions from 1, `payload` is JSON text where asked for."""

    execution_id: UUID
    number: int | None
    item_id: str
    batch: int | None
    sequence_number: int | None
    payload: str | None


class ItemWrite(NamedTuple):
    """The versions of a record that one item of a run wrote, from the first to the last."""

    number: int
    record_id: UUID
    first: int
    last: int


class RunHistory:
    """Reads what runs wrote. A run is named by the workflow ids it stamps its versions with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changes(
        self,
        workflow_ids: Sequence[str],
        *,
        class_types: Sequence[str] | None,
        without: Sequence[str],
        step_id: int | None,
    ) -> Iterator[tuple[StoredVersion, StoredVersion | None]]:
        """Stream versions in the order of the feed, each with the one before it, `None` of a record's first."""
        parameters = {
            "workflow_ids": list(workflow_ids),
            "class_types": None if class_types is None else list(class_types),
            "without": list(without),
            "step_id": step_id,
        }
        for row in self._stream(_CHANGES, parameters):
            before = row[_WIDTH:]
            yield _stored(row), None if before[0] is None else _stored(before)

    def records(self, workflow_ids: Sequence[str], *, without: Sequence[str]) -> Iterator[tuple[UUID, int]]:
        """Stream the records that were written, by id, each with the first version of it that the run wrote."""
        for row in self._stream(_RECORDS, (list(workflow_ids), list(without))):
            yield row[0], row[1]

    def class_types(self, workflow_ids: Sequence[str], *, without: Sequence[str]) -> list[str]:
        """Name the classes of the records that were written."""
        return [name for (name,) in self._database.fetch(_CLASSES, (list(workflow_ids), list(without)))]

    def spans(self, workflow_id: str, workflow_ids: Sequence[str], records: Sequence[tuple[UUID, int]]) -> list[Span]:
        """Tell what is in force of the writes of `workflow_ids`, of which undos call themselves `workflow_id`:undo-n.

        Args:
            workflow_id: What undos of it are named after.
            workflow_ids: Its own.
            records: As `records` gives them; the answer is in the same order.
        """
        parameters: dict[str, Any] = {"workflow_id": workflow_id, "workflow_ids": list(workflow_ids)}
        parameters |= {"ids": [record_id for record_id, _ in records], "firsts": [first for _, first in records]}
        return [Span._make(row) for row in self._database.fetch(_SPANS, parameters)]

    def touches(
        self, workflow_id: str, workflow_ids: Sequence[str], spans: Sequence[Span], limit: int
    ) -> list[tuple[StoredVersion, str]]:
        """Read what others wrote after `first` of each span, each version with the document before it.

        Gives the last `limit` of each record, oldest first.
        """
        parameters: dict[str, Any] = {"workflow_id": workflow_id, "workflow_ids": list(workflow_ids), "limit": limit}
        parameters |= {"ids": [span.id for span in spans], "firsts": [span.first for span in spans]}
        return [(_stored(row), row[_WIDTH]) for row in self._database.fetch(_TOUCHES, parameters)]

    def heads(self, record_ids: Sequence[UUID]) -> dict[UUID, StoredVersion]:
        """Read current versions, tombstones too."""
        return {row[0]: _stored(row) for row in self._database.fetch(_HEADS, (list(record_ids),))}

    def blocked(self, keys: Iterable[tuple[UUID, Key]], among: Sequence[UUID]) -> set[UUID]:
        """Name the records whose wanted keys are held by a record that is not `among` these."""
        wanted = [(record_id, *key) for record_id, key in keys if key.value is not None]
        columns = [list(column) for column in zip(*wanted, strict=True)] or [[], [], [], []]
        return {row[0] for row in self._database.fetch(_BLOCKED, (*columns, list(among)))}

    def free(self, tx: PostgresTransaction, keys: Sequence[tuple[UUID, Key]]) -> None:
        """Free keys in a transaction that goes on to take others; locks the records first, as the write will."""
        ids = sorted({record_id for record_id, _key in keys})
        columns = [list(column) for column in zip(*((record_id, *key[:2]) for record_id, key in keys), strict=True)]
        tx.fetch(_FREE, (ids, *columns))

    def items(self, run_id: UUID, batch_executions: Sequence[UUID], *, payloads: bool) -> Iterator[ItemRow]:
        """Stream the items of a run, in no order."""
        parameters = {"run_id": str(run_id), "batch_executions": [str(one) for one in batch_executions]}
        for row in self._stream(_ITEMS, {**parameters, "payloads": payloads}):
            yield ItemRow._make(row)

    def item_writes(
        self, workflow_ids: Sequence[str], numbers: Sequence[int], *, without: Sequence[str]
    ) -> list[ItemWrite]:
        """Tell which records some items of a run wrote, of each item in the order of writing."""
        rows = self._database.fetch(_WRITES, (list(workflow_ids), list(numbers), list(without)))
        return [ItemWrite._make(row) for row in rows]

    def _stream(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        transaction = PostgresTransaction.begin(self._database)
        try:
            with closing(transaction.driver.cursor("eventic_run_history")) as cursor:
                cursor.itersize = _STREAM_ROWS
                transaction.run(lambda: cursor.execute(sql, parameters))
                yield from cursor
        except psycopg.OperationalError as error:
            raise self._database.unavailable(error) from error
        finally:
            transaction.rollback()


def _stored(row: Sequence[Any]) -> StoredVersion:
    return StoredVersion(row[0], row[1], row[2], row[3], Stamp._make(row[4:_WIDTH]))
