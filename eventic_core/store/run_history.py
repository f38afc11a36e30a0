"""What runs wrote, read for `changes`, `diff`, `undo` and `replay` of automations; and the unique keys these exchange.

Owns the statements and their rows. Knows no record class: what a version means is the caller's business. Long answers
are streamed through a server-side cursor, on a transaction that only reads and so holds back no change feed.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from eventic_core.records.port import Cursor, StoredVersion
from eventic_core.records.stamp import Stamp
from eventic_core.store.sql import COLUMNS, statement
from eventic_core.store.transaction import PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.records.port import Key
    from eventic_core.store.engine import Database

_CHANGES: Final = statement("run_changes", columns=COLUMNS)
_RECORDS: Final = statement("run_records")
_CLASSES: Final = statement("run_classes")
_SPANS: Final = statement("undo_spans")
_REPLAY_SPANS: Final = statement("replay_spans")
_TOUCHES: Final = statement("touches", columns=COLUMNS)
_BLOCKED: Final = statement("blocked_keys")
_FREE: Final = statement("free_keys")
_HEADS: Final = statement("heads", columns=COLUMNS)
_ITEMS: Final = statement("run_items")
_WRITES: Final = statement("item_writes")
_REPLAY_NUMBERS: Final = statement("replay_numbers")
_REPLAY_ITEMS: Final = statement("replay_items")
_VERSIONS_AT: Final = statement("versions_at", columns=COLUMNS)

_STREAM_ROWS: Final = 500
_WIDTH: Final = 4 + len(Stamp._fields)


class Span(NamedTuple):
    """What is in force of a run's writes of one record.

    Attributes:
        first: The first version in force; `None` if all were undone.
        head: The record's current version.
        others: How many versions after `first` somebody else wrote.
    """

    id: UUID
    first: int | None
    head: int
    others: int


class ReplaySpan(NamedTuple):
    """What a run and its replays have written of a record.

    Attributes:
        first: Their first version, or that which the next one would be.
        head: The record's current version; `None` if there is none yet.
        others: How many versions from `first` on somebody else wrote.
    """

    id: UUID
    first: int
    head: int | None
    others: int


class ReplayItem(NamedTuple):
    """The last attempt at an item of a run, and the item as of then; documents are JSON text.

    Attributes:
        version: That of the execution when the attempt began.
        began: The execution when the attempt began.
        ended: The version after; `None` while it lasts.
        before: The place in the feed after which come the attempt's own writes.
        moment: As of when the item is read.
        deleted: Whether the item is deleted then; `None` if it does not exist.
    """

    number: int
    id: UUID
    version: int
    began: str
    ended: str | None
    before: Cursor
    moment: datetime
    payload: Any
    deleted: bool | None


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

    def replay_spans(self, workflow_ids: Sequence[str], records: Sequence[tuple[UUID, int]]) -> list[ReplaySpan]:
        """Tell what a run and its replays have written of records, each with the version to be written if nothing."""
        parameters: dict[str, Any] = {"workflow_ids": list(workflow_ids)}
        parameters |= {"ids": [record_id for record_id, _ in records], "firsts": [first for _, first in records]}
        return [ReplaySpan._make(row) for row in self._database.fetch(_REPLAY_SPANS, parameters)]

    def touches(
        self, records: Sequence[tuple[UUID, int]], workflow_ids: Sequence[str], *, branch: str | None, limit: int
    ) -> list[tuple[StoredVersion, str | None]]:
        """Read what others wrote after a version of each record, each version with the document before it.

        Gives the last `limit` of each record, oldest first.

        Args:
            records: Each with the version after which they wrote.
            workflow_ids: Of those who are no others.
            branch: What the workflow ids of more such begin with.
            limit: At most so many of each record.
        """
        parameters: dict[str, Any] = {"branch": branch, "workflow_ids": list(workflow_ids), "limit": limit}
        parameters |= {"ids": [record_id for record_id, _ in records], "firsts": [first for _, first in records]}
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
        self,
        workflow_ids: Sequence[str],
        numbers: Sequence[int],
        *,
        since: Mapping[int, Cursor],
        without: Sequence[str],
    ) -> list[ItemWrite]:
        """Tell which records some items of a run wrote, of each item in the order of writing.

        Args:
            workflow_ids: Those of the run.
            numbers: The items'.
            since: For items, the place in the feed after which their writes count.
            without: Classes that do not count.
        """
        after = [since.get(number, Cursor()) for number in numbers]
        places = ([str(cursor.xid) for cursor in after], [cursor.position for cursor in after])
        rows = self._database.fetch(_WRITES, (list(numbers), *places, list(workflow_ids), list(without)))
        return [ItemWrite._make(row) for row in rows]

    def begun_numbers(self, run_id: UUID, numbers: Sequence[int] | None) -> list[int]:
        """List the items of a run that have begun, or which of some have, in order."""
        parameters = {"run": str(run_id), "numbers": None if numbers is None else list(numbers)}
        return [number for (number,) in self._database.fetch(_REPLAY_NUMBERS, parameters)]

    def last_attempts(
        self, run_id: UUID, numbers: Sequence[int], statuses: Sequence[str], moment: datetime | None
    ) -> list[ReplayItem]:
        """Read the last attempts at some items that have begun, in order, with the items as of a moment.

        Args:
            run_id: The run.
            numbers: The items'.
            statuses: All there are, for the index.
            moment: `None` is the one at which the attempt began.
        """
        parameters = {"run": str(run_id), "numbers": list(numbers), "statuses": list(statuses), "moment": moment}
        rows = self._database.fetch(_REPLAY_ITEMS, parameters)
        return [ReplayItem._make((*row[:5], Cursor(int(row[5]), row[6]), *row[7:])) for row in rows]

    def versions_at(self, record_ids: Sequence[UUID], moment: datetime) -> dict[UUID, StoredVersion]:
        """Read the versions of records that were current at a moment, tombstones too."""
        return {row[0]: _stored(row) for row in self._database.fetch(_VERSIONS_AT, (list(record_ids), moment))}

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
