"""New records by COPY: versions 0 of many, and their unique keys, in a transaction of the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import errors as pg

from eventic_core.store import columns
from eventic_core.store.refusals import UNSTORABLE, taken, unstorable
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from eventic_core.records.port import Append
    from eventic_core.store.transaction import PostgresTransaction

_COPY = statement("copy")
_COPY_KEYS = statement("copy_keys")
_ROWS = 5000
_BYTES = 8 * 1024 * 1024


class Copy:
    """A bulk creation, and what it has sent so far.

    Attributes:
        ids: Of the records, in order.
        by_class: The same by their class.
        first: The first version of each class and schema version.
    """

    def __init__(self) -> None:
        self.ids: list[UUID] = []
        self.by_class: dict[str, list[UUID]] = {}
        self.first: dict[tuple[str, int], Append] = {}

    def send(self, appends: Iterable[Append], tx: PostgresTransaction) -> None:
        """Send new records, each while the iterator gives the next; it cannot use the connection meanwhile.

        Raises:
            DuplicateKey, RecordExists: A unique key or an id is taken.
            InvalidRecord: Postgres cannot store a value.
        """
        keys: list[tuple[UUID, str, str, str | None]] = []

        def send() -> None:
            with tx.driver.cursor() as cursor, cursor.copy(_COPY) as copy:
                for append in appends:
                    self._note(append)
                    keys.extend((append.id, *key) for key in append.keys)
                    copy.write_row(columns.of_one(append))
            if keys:
                with tx.driver.cursor() as cursor, cursor.copy(_COPY_KEYS) as copy:
                    for key in keys:
                        copy.write_row(key)

        try:
            tx.run(send)
        except pg.UniqueViolation as error:
            raise taken(error, [class_type for class_type, _schema_version in self.first]) from error
        except UNSTORABLE as error:
            raise unstorable(error) from error

    def _note(self, append: Append) -> None:
        self.ids.append(append.id)
        self.by_class.setdefault(append.class_type, []).append(append.id)
        self.first.setdefault((append.class_type, append.schema_version), append)


def chunks(appends: Iterable[Append]) -> Iterator[list[Append]]:
    """Group what one COPY sends, for an iterator that reads on the connection between two of them."""
    chunk: list[Append] = []
    size = 0
    for append in appends:
        chunk.append(append)
        size += len(append.data)
        if len(chunk) >= _ROWS or size >= _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
