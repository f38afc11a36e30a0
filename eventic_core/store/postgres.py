"""The record store on Postgres: the records' port, implemented.

Fixed statements are in `sql/`, those that write versions chosen in `appends`, dynamic ones made in `queries`; new
records by COPY are in `copying`, what a refused write means in `refusals`, connections in `engine`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from psycopg import errors as pg

from eventic_core.errors import HistoryRemoved
from eventic_core.records.port import Append, Cursor, StaleWrite, StoredVersion, Written
from eventic_core.records.stamp import Stamp
from eventic_core.store import queries
from eventic_core.store.appends import Write
from eventic_core.store.copying import Copy, chunks
from eventic_core.store.handlers import HandlerList
from eventic_core.store.moves import Moves
from eventic_core.store.progress import Progress
from eventic_core.store.refusals import UNSTORABLE, taken, unstorable
from eventic_core.store.slots import Slot
from eventic_core.store.sql import COLUMNS, statement
from eventic_core.store.transaction import PostgresTransaction
from eventic_core.store.work import WorkTable
from eventic_core.store.workers import WorkerTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.records.filters import Selection
    from eventic_core.records.port import Checkpoint, Transaction, Work
    from eventic_core.store.engine import Database

T = TypeVar("T")


_VERSIONS = statement("versions", columns=COLUMNS)
_HEAD = statement("head", columns=COLUMNS)
_VERSION = statement("version", columns=COLUMNS)
_AT = statement("at", columns=COLUMNS)
_FLOORS = statement("history_floors")
_HISTORY = statement("history", columns=COLUMNS)
_CHANGES = statement("changes", columns=COLUMNS)
_WRITTEN_BY = statement("written_by", columns=COLUMNS)
_OUTCOME = statement("outcome")
_NOTE_CLASS = statement("note_class")
_CLASSES = statement("classes")
_FEED_AHEAD = statement("feed_ahead")
_ERASE = statement("erase_everything")
_FEED_HORIZON = statement("feed_horizon")

_NO_BOUND = 2**31 - 1
_STREAM_ROWS = 1000


class PostgresStore:
    """Keeps versions in `eventic.records`; see the port for the contract of each call."""

    def __init__(self, database: Database, app_version: str, *, max_record_bytes: int) -> None:
        self.database = database
        self.max_record_bytes = max_record_bytes
        self.work = WorkTable(database, app_version)
        self.handlers = HandlerList(database, self.work)
        self.progress = Progress(database)
        self.workers = WorkerTable(database)
        self._noted: set[tuple[str, int]] = set()

    def begin(self) -> PostgresTransaction:
        return PostgresTransaction.begin(self.database)

    def join(self, session: Any) -> PostgresTransaction:
        return PostgresTransaction.join(self.database, session)

    @contextmanager
    def transaction(self, tx: PostgresTransaction | None = None) -> Iterator[PostgresTransaction]:
        """Do a block in a transaction that is open, or in one of its own."""
        if tx is not None:
            yield tx
            return
        own = self.begin()
        try:
            yield own
        except BaseException:
            own.rollback()
            raise
        own.commit()

    # -- writing

    def append(
        self,
        appends: Sequence[Append],
        tx: Transaction | None = None,
        *,
        work: Sequence[Work] = (),
        checkpoint: Checkpoint | None = None,
        told: bool = True,
        ends_group: bool = False,
    ) -> list[Written]:
        """Write versions, all or none; see the port.

        Args:
            appends: The versions.
            tx: The transaction to write in.
            work: What is to be enqueued.
            checkpoint: The step that the write is.
            told: If not, nothing is given back: for a writer of thousands who will not look.
            ends_group: Whether the run of `checkpoint` is a group that is done with this: items of it have ended.
        """
        joined = _ours(tx)
        for append in appends:
            self._note(append)
        sent, moves = self._moves(appends, tx)
        while True:
            all_work = [*work, *self.handlers.follow_ups(appends)]
            write = Write(all_work, checkpoint, moves, told, ends_group)
            sql, parameters = write.sql(sent, self.handlers.generation, self.work)
            rows = self._write(appends, joined, sql, parameters)
            if rows:
                break
            if checkpoint is not None and not isinstance(refused := self.work.refusal(checkpoint), LookupError):
                raise refused
            if not self.handlers.refresh():
                raise StaleWrite
        if joined is not None:
            joined.written.extend(append.version_id for append in appends)
        self.work.announce(all_work, joined)
        if not told:
            return []
        if len(appends) == 1 and len(rows) == 1:
            return [_written(appends[0], rows[0][-3:])]
        by_id = {row[0]: row[1:] for row in rows}
        return [_written(append, by_id[append.version_id]) for append in appends]

    def _moves(self, appends: Sequence[Append], tx: Transaction | None) -> tuple[Sequence[Append], Moves | None]:
        """Check the moves of versions; gives what to write then, one by one if others are between those of a record."""
        moves = Moves.of(appends, lambda record_id: self.head(record_id, tx))
        if moves is None or moves.records == len(appends) or not any(append.passed for append in appends):
            return appends, moves
        return self._moves([version for append in appends for version in append.each()], tx)

    def _write(
        self,
        appends: Sequence[Append],
        joined: PostgresTransaction | None,
        sql: str,
        parameters: Sequence[Any],
    ) -> list[tuple[Any, ...]]:
        try:
            if joined is not None:
                return _guarded(joined, lambda: joined.fetch(sql, parameters))
            return self._append_alone(sql, parameters, appends)
        except pg.UniqueViolation as error:
            raise taken(error, [append.class_type for append in appends if append.first_version == 0]) from error
        except UNSTORABLE as error:
            raise unstorable(error) from error

    def enqueue(
        self, work: Sequence[Work], tx: Transaction | None = None, *, checkpoint: Checkpoint | None = None
    ) -> None:
        self.work.enqueue(work, _ours(tx), checkpoint)

    def _append_alone(self, sql: str, parameters: Sequence[Any], appends: Sequence[Append]) -> list[tuple[Any, ...]]:
        """Write in a transaction of its own; after a lost connection find out first whether it is there already.

        A lost attempt may still be at work on the server, ahead of its repetition, which then looks like a conflict.
        """
        repeated = False

        def attempt() -> list[tuple[Any, ...]]:
            nonlocal repeated
            again, repeated = repeated, True
            try:
                rows = self._execute(sql, parameters)
            except pg.UniqueViolation:
                if again and (found := self._outcome(appends)):
                    return found
                raise
            return (self._outcome(appends) or rows) if again and not rows else rows

        return self.database.persist(attempt, lambda: self._outcome(appends))

    def _execute(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self.database.run(sql, parameters)

    def _outcome(self, appends: Sequence[Append]) -> list[tuple[Any, ...]] | None:
        rows = self._execute(_OUTCOME, ([append.version_id for append in appends],))
        return rows or None

    def _note(self, append: Append) -> None:
        """Remember the class's schema version when this process first writes it.

        On a connection of its own, outside the pool: a transaction that noted it would hold up every other writer of
        the class, and one that waited for the pool might wait for itself.
        """
        noted = (append.class_type, append.schema_version)
        if noted in self._noted:
            return

        def note() -> None:
            with self.database.apart() as connection:
                connection.execute(_NOTE_CLASS, noted)

        self.database.persist(note)
        self._noted.add(noted)

    def load(self, appends: Iterable[Append], tx: Transaction | None = None) -> list[UUID]:
        copy = Copy()
        with self.transaction(_ours(tx)) as joined:
            # Only a transaction of the caller's is one that the iterator may want to read in, between two COPYs.
            for chunk in [appends] if tx is None else chunks(appends):
                copy.send(chunk, joined)
            for append in copy.first.values():
                self._note(append)
                joined.written.append(append.version_id)
            self.handlers.refresh()
            for class_type, created in copy.by_class.items():
                self.enqueue(self.handlers.bulk_follow_ups(class_type, created), joined)
        return copy.ids

    # -- reading

    def _fetch(
        self, sql: str, parameters: Sequence[Any] | dict[str, Any], tx: Transaction | None
    ) -> list[StoredVersion]:
        return [_stored(row) for row in self._rows(sql, parameters, tx)]

    def _rows(
        self, sql: str, parameters: Sequence[Any] | dict[str, Any], tx: Transaction | None
    ) -> list[tuple[Any, ...]]:
        joined = _ours(tx)
        return self.database.fetch(sql, parameters) if joined is None else joined.fetch(sql, parameters)

    def head(self, record_id: UUID, tx: Transaction | None = None) -> StoredVersion | None:
        rows = self._fetch(_HEAD, (record_id,), tx)
        return rows[0] if rows else None

    def version(self, record_id: UUID, version: int, tx: Transaction | None = None) -> StoredVersion | None:
        if not 0 <= version <= _NO_BOUND:
            return None
        rows = self._fetch(_VERSION, (record_id, version), tx)
        return rows[0] if rows else None

    def versions(self, wanted: Sequence[tuple[UUID, int]], tx: Transaction | None = None) -> list[StoredVersion]:
        """Read exactly these `(id, version)`, in this order."""
        if not wanted:
            return []
        ids, numbers = map(list, zip(*wanted, strict=True))
        return self._fetch(_VERSIONS, (ids, numbers), tx)

    def at(self, record_id: UUID, moment: datetime, tx: Transaction | None = None) -> StoredVersion | None:
        rows = self._fetch(_AT, (record_id, moment), tx)
        return rows[0] if rows else None

    def history(
        self, record_id: UUID, *, limit: int | None, before: int | None, tx: Transaction | None = None
    ) -> list[StoredVersion]:
        return self._fetch(_HISTORY, (record_id, _NO_BOUND if before is None else before, limit), tx)

    def select(self, selection: Selection, tx: Transaction | None = None) -> list[StoredVersion]:
        rows = self._fetch(*queries.select(selection), tx)
        self._require_whole(selection, tx)
        return rows

    def count(self, selection: Selection, tx: Transaction | None = None) -> int:
        count = int(self._rows(*queries.count(selection), tx)[0][0])
        self._require_whole(selection, tx)
        return count

    def stream(self, selection: Selection, tx: Transaction | None = None) -> Iterator[StoredVersion]:
        joined = _ours(tx)
        transaction = joined or self.begin()
        try:
            with transaction.driver.cursor(f"eventic_stream_{id(selection):x}") as cursor:
                cursor.itersize = _STREAM_ROWS
                sql, parameters = queries.select(selection)
                transaction.run(lambda: cursor.execute(sql, parameters))
                self._require_whole(selection, transaction)
                for row in cursor:
                    yield _stored(row)
        except psycopg.OperationalError as error:
            raise self.database.unavailable(error) from error
        finally:
            if joined is None:
                transaction.rollback()

    def _require_whole(self, selection: Selection, tx: Transaction | None) -> None:
        """Refuse what was read as of a moment of which versions were removed; afterwards, so that none was meanwhile.

        Raises:
            HistoryRemoved: Says since when the class is whole.
        """
        if selection.moment is None:
            return
        floors = dict(self._rows(_FLOORS, (list(selection.class_types),), tx))
        name, since = max(floors.items(), key=lambda floor: floor[1], default=(None, None))
        if since is not None and selection.moment < since:
            message = (
                f"{name} as of {selection.moment.isoformat()} is not stored any more: retention has removed versions "
                f"that were current then. It is whole since {since.isoformat()}."
            )
            raise HistoryRemoved(message)

    def changes(self, class_types: Sequence[str] | None, after: Cursor, limit: int) -> list[StoredVersion]:
        types = None if class_types is None else list(class_types)
        return self._fetch(_CHANGES, (str(after.xid), after.position, types, types, limit), None)

    def written_by(self, workflow_id: str, tx: Transaction | None = None) -> list[StoredVersion]:
        return self._fetch(_WRITTEN_BY, (workflow_id,), tx)

    def feed_horizon(self) -> tuple[int, int]:
        """Give the transaction ids below which all have ended, and from which on none had begun."""
        (ended, begun), *_ = self.database.fetch(_FEED_HORIZON, ())
        return int(ended), int(begun)

    def erase_everything(self) -> None:
        """Delete all data of the package and of DBOS; for tests.

        Raises:
            Conflict: Another process works on the database.
        """
        with Slot(self.database).alone(), self.database.apart() as connection:
            connection.execute(_ERASE)
        self.work.forget_queues()
        self.handlers.refresh()

    def is_feed_ahead(self) -> bool:
        """Tell whether stored transaction ids are ahead of the cluster's, which holds the change feed back."""
        return bool(self.database.fetch(_FEED_AHEAD, ())[0][0])

    def schema_versions(self, class_types: Sequence[str]) -> list[tuple[str, int]]:
        """Give the schema versions of the classes that were ever written."""
        return [(str(name), int(version)) for name, version in self.database.fetch(_CLASSES, (list(class_types),))]


def _ours(tx: Transaction | None) -> PostgresTransaction | None:
    """The port's transaction is always one of ours: only this store makes them."""
    return cast("PostgresTransaction | None", tx)


def _guarded(tx: PostgresTransaction, work: Callable[[], T]) -> T:
    """Do work that the server may refuse; what the transaction wrote before stays."""
    savepoint = tx.savepoint()
    try:
        return work()
    except psycopg.OperationalError:
        raise
    except BaseException:
        if not tx.connection.invalidated and not tx.driver.closed:
            tx.rollback_to(savepoint)
        raise


def _written(append: Append, row: Sequence[Any]) -> Written:
    recorded_at, xid, position = row
    return Written(append, append.stamp(recorded_at, int(xid), position))


def _stored(row: Sequence[Any]) -> StoredVersion:
    return StoredVersion(row[0], row[1], row[2], row[3], Stamp._make(row[4:]))
