"""The store's port: what records ask of a database, in neutral values, and the one store in use.

Owns the protocol and its values. Knows no SQL and no driver; `store` implements it, the facade installs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from eventic_core.errors import NotInitialised
from eventic_core.records.documents import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.records.filters import Selection
    from eventic_core.records.stamp import Stamp


class Key(NamedTuple):
    """One unique key of a record: `value` is canonical JSON, `None` frees the key."""

    scope: str
    name: str
    value: str | None


class Append(NamedTuple):
    """One version to write; `version` 0 creates the record, any other needs `version - 1` to be current."""

    id: UUID
    version: int
    class_type: str
    data: bytes
    schema_version: int
    actor: str | None
    reason: str | None
    correlation_id: str | None
    workflow_id: str | None
    step_id: int | None
    tombstone: bool
    keys: tuple[Key, ...]
    version_id: UUID


class StoredVersion(NamedTuple):
    """One stored version; `data` is JSON text."""

    id: UUID
    version: int
    class_type: str
    data: str | bytes
    stamp: Stamp

    @property
    def document(self) -> dict[str, Any]:
        """The version's values as stored, decoded."""
        return load(self.data)


class Cursor(NamedTuple):
    """A place in the change feed, after the version with this transaction id and position; `Cursor()` is the start."""

    xid: int = 0
    position: int = 0


class StaleWrite(Exception):
    """Some of the versions to append are not next in line; nothing was written."""


class Transaction(Protocol):
    """An open database transaction that appends and reads join."""

    @property
    def connection(self) -> Any:
        """The SQLAlchemy Connection, a type this layer must not import."""

    def commit(self) -> None:
        """End it; raises `StoreUnavailable` only if nothing was stored."""

    def rollback(self) -> None:
        """End it, undoing everything."""

    def on_rollback(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the caller, who ends the transaction, rolls it back."""

    def savepoint(self) -> str:
        """Mark a point to go back to."""

    def rollback_to(self, savepoint: str) -> None:
        """Undo everything since a savepoint."""


class Store(Protocol):
    """Where versions are kept. Each call joins `tx` or is a transaction of its own.

    Every call may raise `StoreUnavailable`, after waiting for a lost server for as long as the settings say.
    """

    max_record_bytes: int

    def begin(self) -> Transaction:
        """Open a transaction; the caller ends it."""
        ...

    def join(self, session: Any) -> Transaction:
        """Use the transaction of a caller's Session or Connection, which the caller ends."""
        ...

    def append(self, appends: Sequence[Append], tx: Transaction | None = None) -> list[Stamp]:
        """Write all versions or none, in one statement.

        Raises:
            StaleWrite: A predecessor is not the current version; nothing was written.
            RecordExists: The id of a new record is taken.
            DuplicateKey: A unique key is held by another record.
        """
        ...

    def head(self, record_id: UUID, tx: Transaction | None = None) -> StoredVersion | None:
        """Read the current version, a tombstone too."""
        ...

    def version(self, record_id: UUID, version: int, tx: Transaction | None = None) -> StoredVersion | None:
        """Read exactly one version."""
        ...

    def at(self, record_id: UUID, moment: datetime, tx: Transaction | None = None) -> StoredVersion | None:
        """Read the version that was current at a moment."""
        ...

    def history(
        self, record_id: UUID, *, limit: int | None, before: int | None, tx: Transaction | None = None
    ) -> list[StoredVersion]:
        """Read versions newest first, below version `before`."""
        ...

    def select(self, selection: Selection, tx: Transaction | None = None) -> list[StoredVersion]:
        """Read what a query selects."""
        ...

    def count(self, selection: Selection, tx: Transaction | None = None) -> int:
        """Count what a query selects."""
        ...

    def stream(self, selection: Selection, tx: Transaction | None = None) -> Iterator[StoredVersion]:
        """Read what a query selects through a server-side cursor."""
        ...

    def load(self, appends: Iterable[Append], tx: Transaction | None = None) -> list[UUID]:
        """Create many records through COPY, all or none."""
        ...

    def changes(self, class_types: Sequence[str] | None, after: Cursor, limit: int) -> list[StoredVersion]:
        """Read the change feed below the oldest running transaction."""
        ...

    def written_by(self, workflow_id: str, tx: Transaction | None = None) -> list[StoredVersion]:
        """Read every version a run wrote, in the order of writing."""
        ...


_store: Store | None = None


def install(store: Store | None) -> None:
    """Make `store` the one that records use; `None` removes it. For the facade only."""
    global _store  # noqa: PLW0603 - the one runtime
    _store = store


def current_store() -> Store:
    """Give the installed store.

    Raises:
        NotInitialised: `Eventic.init` was not called.
    """
    if _store is None:
        message = "No database is connected: call Eventic.init(name=..., database_url=...) before using records."
        raise NotInitialised(message)
    return _store
