"""How far each handler came with each record, and the versions it gave up on.

A version counts as handled in the transaction that holds what its handler wrote, so the two commit together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from eventic_core.records.ids import new_id
from eventic_core.records.port import StoredVersion
from eventic_core.records.stamp import Stamp
from eventic_core.store.sql import COLUMNS, statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store.engine import Database
    from eventic_core.store.transaction import PostgresTransaction

_UNHANDLED = statement("unhandled", columns=COLUMNS)
_UNHANDLED_MANY = statement("unhandled_many", columns=COLUMNS)
_ADVANCE = statement("advance")
_ADVANCE_MANY = statement("advance_many")
_ATTEMPTED = statement("attempted")
_SET_ASIDE = statement("set_aside")
_DEAD_LETTERS = statement("dead_letters")
_SETTLE = statement("settle")
_REOPEN = statement("reopen")

BATCH_VERSIONS = 20


class Unhandled(NamedTuple):
    """Where a handler is with a record.

    Attributes:
        last: The last version it is done with; -1 is none.
        attempts: Failed attempts at the next one.
        waits: Whether the next attempt is not due yet.
        versions: The next ones, in order; not all, if there are many.
    """

    last: int
    attempts: int
    waits: bool
    versions: list[StoredVersion]


class DeadLetter(NamedTuple):
    """A version a handler gave up on.

    Attributes:
        error: The last attempt's, as the codec writes it.
        state: `open`, `retried` while a worker is to try it again, `done` or `discarded`.
        settled_by: The actor who discarded or retried it.
    """

    id: UUID
    handler: str
    class_type: str
    record_id: UUID
    version: int
    attempts: int
    error: Any
    failed_at: datetime
    state: str
    settled_at: datetime | None
    settled_by: str | None


class Progress:
    """The tables `handled` and `dead_letters`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unhandled(self, handler: str, record_id: UUID, since_xid: str) -> Unhandled:
        """Read where a handler is with a record, and the next versions from `since_xid` on."""
        parameters = (handler, record_id, record_id, since_xid, BATCH_VERSIONS)
        rows = self._database.fetch(_UNHANDLED, parameters)
        last, attempts, waits = rows[0][:3]
        versions = [_stored(row[3:]) for row in rows if row[3] is not None]
        return Unhandled(-1 if last is None else last, attempts, waits, versions)

    def unhandled_new(self, handler: str, ids: Sequence[UUID]) -> list[StoredVersion]:
        """Read the version 0 of those new records that a handler has not begun with."""
        return [_stored(row) for row in self._database.fetch(_UNHANDLED_MANY, (list(ids), handler))]

    def advance(
        self, handler: str, record_id: UUID, *, before: int, to: int, tx: PostgresTransaction | None = None
    ) -> bool:
        """Note that a handler is done up to version `to`; false if it was not at `before`."""
        parameters = (handler, record_id, to, before)
        return bool(tx.fetch(_ADVANCE, parameters) if tx else self._database.fetch(_ADVANCE, parameters))

    def advance_new(self, handler: str, ids: Sequence[UUID], tx: PostgresTransaction) -> bool:
        """Note that a handler is done with version 0 of records it had not begun with; false if it had."""
        return len(tx.fetch(_ADVANCE_MANY, (handler, list(ids)))) == len(ids)

    def attempted(
        self, handler: str, record_id: UUID, *, last: int, attempts: int, due_seconds: float, tx: PostgresTransaction
    ) -> None:
        """Note a failed attempt at the version after `last`, and when the next is due."""
        tx.fetch(f"{_ATTEMPTED} returning 1", (handler, record_id, last, attempts, due_seconds))

    def set_aside(
        self, handler: str, version: StoredVersion, *, attempts: int, error: Any, tx: PostgresTransaction
    ) -> UUID:
        """Store a dead letter; gives its id."""
        made = new_id()
        row = (made, handler, version.class_type, version.id, version.version, attempts, to_json(error).decode())
        tx.fetch(f"{_SET_ASIDE} returning 1", row)
        return made

    def dead_letters(self, *, handler: str | None, states: Sequence[str], limit: int) -> list[DeadLetter]:
        """Read dead letters, newest first."""
        rows = self._database.fetch(_DEAD_LETTERS, (list(states), handler, handler, None, None, limit))
        return [DeadLetter._make(row) for row in rows]

    def dead_letter(self, letter_id: UUID) -> DeadLetter | None:
        """Read one dead letter."""
        rows = self._database.fetch(
            _DEAD_LETTERS, (["open", "retried", "done", "discarded"], None, None, letter_id, letter_id, 1)
        )
        return DeadLetter._make(rows[0]) if rows else None

    def reopen(self, letter_id: UUID, *, error: Any, tx: PostgresTransaction) -> None:
        """Note that another attempt at a dead letter failed."""
        tx.fetch(_REOPEN, (to_json(error).decode(), letter_id))

    def settle(
        self,
        letter_id: UUID,
        *,
        before: Sequence[str],
        state: str,
        by: str | None,
        tx: PostgresTransaction | None = None,
    ) -> bool:
        """Move a dead letter from one of the states `before`; false if it is in none of them."""
        parameters = (state, by, letter_id, list(before))
        return bool(tx.fetch(_SETTLE, parameters) if tx else self._database.fetch(_SETTLE, parameters))


def _stored(row: Sequence[Any]) -> StoredVersion:
    return StoredVersion(row[0], row[1], row[2], row[3], Stamp._make(row[4:]))
