"""The store's port: what records ask of a database, in neutral values, and the one store in use.

Owns the protocol and its values. Knows no SQL and no driver; `store` implements it, the facade installs it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic_core import to_json

from eventic_core.errors import NotInitialised
from eventic_core.records.documents import load
from eventic_core.records.ids import new_id
from eventic_core.records.setting import Setting
from eventic_core.records.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.records.filters import Selection


class Key(NamedTuple):
    """One unique key of a record: `value` is canonical JSON, `None` frees the key."""

    scope: str
    name: str
    value: str | None


class Passed(NamedTuple):
    """A version that a record passes through in the write that makes a later one of it, which it is stamped like.

    Attributes:
        document: Its values.
    """

    reason: str | None
    calls: str | None
    document: Mapping[str, Any]


class Append(NamedTuple):
    """One version to write; `version` 0 creates the record, any other needs `version - 1` to be current.

    Attributes:
        before: Of a class with states, the state of the version before as the writer knows it; `None` has the store
            look. Of a new item's execution, as what its run has counted it so far.
        document: The values of `data` as the writer has them, so that nobody need decode them.
        passed: The versions just before this one that are written along; the first of them then is what needs the one
            before it. Only with `document`.
    """

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
    calls: str | None = None
    before: str | None = None
    document: Mapping[str, Any] | None = None
    passed: tuple[Passed, ...] = ()

    @property
    def first_version(self) -> int:
        """The first version that is written."""
        return self.version - len(self.passed)

    def each(self) -> Iterator[Append]:
        """Give one append for each version that is written."""
        before = self.before
        for version, (reason, calls, document) in enumerate(self.passed, self.first_version):
            yield self._replace(
                version=version,
                data=to_json(document),
                reason=reason,
                tombstone=False,
                keys=(),
                version_id=new_id(),
                calls=calls,
                before=before,
                document=document,
                passed=(),
            )
            before = None
        yield self._replace(before=before, passed=())

    def stamp(self, recorded_at: datetime, xid: int, position: int) -> Stamp:
        """Make the stamp of the version, once it is known when it was written and where it is in the feed."""
        return Stamp(
            self.version_id,
            self.actor,
            self.reason,
            self.correlation_id,
            self.workflow_id,
            self.step_id,
            self.schema_version,
            recorded_at,
            None,
            xid,
            position,
            self.tombstone,
            self.calls,
        )


class Work(NamedTuple):
    """One piece of background work, to be enqueued in the transaction that causes it.

    Attributes:
        id: The run's id; work whose id is known already is not enqueued again.
        name: The workflow that does it.
        payload: Its input, JSON text.
        lane: Work of one lane runs one at a time and in order; `None` runs in parallel.
        delay_seconds: How long it waits before it is ready.
        parent: The run it is part of.
        priority: Of work of a queue that is ready, what has a lower one is begun first.
    """

    id: str
    name: str
    queue: str
    payload: str
    lane: str | None = None
    delay_seconds: float = 0.0
    parent: str | None = None
    priority: int = 0


class Checkpoint(NamedTuple):
    """The row by which a repeated run recognises a step it has done; written with what the step wrote.

    Attributes:
        owner: The token of the execution; a write under a token that is not the run's any more is refused.
        output: JSON text.
        started_ms: Milliseconds since the epoch.
    """

    workflow_id: str
    owner: str
    step_id: int
    name: str
    output: str
    started_ms: int


class Written(NamedTuple):
    """A version as it was stored: the append that was asked for, or what a repeated run wrote the first time."""

    append: Append
    stamp: Stamp


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


class AlreadyDone(Exception):
    """The step was done by an earlier execution of the run; nothing was written.

    Attributes:
        name: The step's name then.
        output: JSON text; `None` if it failed.
        error: JSON text of its error; `None` if it succeeded.
    """

    def __init__(self, name: str, output: str | None, error: str | None) -> None:
        super().__init__(name)
        self.name = name
        self.output = output
        self.error = error


class OwnershipLost(Exception):
    """Another execution of the run took over, or it was cancelled; nothing was written."""


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

    def append(
        self,
        appends: Sequence[Append],
        tx: Transaction | None = None,
        *,
        work: Sequence[Work] = (),
        checkpoint: Checkpoint | None = None,
    ) -> list[Written]:
        """Write all versions or none, in one statement, with the work they cause.

        That is `work`, and one piece for each handler that subscribes to a version, in whatever process.

        Raises:
            StaleWrite: A predecessor is not the current version; nothing was written.
            RecordExists: The id of a new record is taken.
            DuplicateKey: A unique key is held by another record.
            AlreadyDone: `checkpoint` is there already.
            OwnershipLost: `checkpoint` is of an execution that does not own the run any more.
        """
        ...

    def enqueue(
        self, work: Sequence[Work], tx: Transaction | None = None, *, checkpoint: Checkpoint | None = None
    ) -> None:
        """Enqueue work, in one statement; raises for `checkpoint` what `append` does."""
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
        """Read what a query selects.

        Raises:
            HistoryRemoved: As of a moment of which versions were removed; `count` and `stream` raise it too.
        """
        ...

    def count(self, selection: Selection, tx: Transaction | None = None) -> int:
        """Count what a query selects."""
        ...

    def stream(self, selection: Selection, tx: Transaction | None = None) -> Iterator[StoredVersion]:
        """Read what a query selects through a server-side cursor."""
        ...

    def load(self, appends: Iterable[Append], tx: Transaction | None = None) -> list[UUID]:
        """Create many records through COPY, all or none; of an error in `tx`, its owner undoes what is there.

        The iterator may use `tx`, in which what is sent lags some thousands behind it.
        """
        ...

    def changes(self, class_types: Sequence[str] | None, after: Cursor, limit: int) -> list[StoredVersion]:
        """Read the change feed below the oldest running transaction."""
        ...

    def written_by(self, workflow_id: str, tx: Transaction | None = None) -> list[StoredVersion]:
        """Read every version a run wrote, in the order of writing."""
        ...


class Background(Protocol):
    """What records ask of the runtime."""

    def later(self, record: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work:
        """Make the work that calls a method of a record on a worker.

        Raises:
            NotSerialisable: JSON cannot hold an argument.
        """
        ...


_store: Store | None = None
_background: Background | None = None
_override: ContextVar[Store | None] = ContextVar("eventic_store", default=None)


def install(store: Store | None) -> None:
    """Make `store` the one that records use; `None` removes it. For the facade only."""
    global _store  # noqa: PLW0603 - the one runtime
    _store = store


def install_background(background: Background | None) -> None:
    """Make `background` what records ask for background work; for the runtime only."""
    global _background  # noqa: PLW0603 - the one runtime
    _background = background


def current_background() -> Background:
    """Give what makes background work.

    Raises:
        NotInitialised: `Eventic.init` was not called.
    """
    if _background is None:
        message = "No database is connected: call Eventic.init(name=..., database_url=...) before background work."
        raise NotInitialised(message)
    return _background


def using_store(store: Store | None) -> Setting[Store | None]:
    """Make records of this task use another store inside a `with` block; `None` is the installed one."""
    return Setting(_override, store)


def installed_store() -> Store:
    """Give the installed store, whatever `using_store` says.

    Raises:
        NotInitialised: `Eventic.init` was not called.
    """
    with using_store(None):
        return current_store()


def current_store() -> Store:
    """Give the store that records of this task use.

    Raises:
        NotInitialised: `Eventic.init` was not called.
    """
    override = _override.get()
    if override is not None:
        return override
    if _store is None:
        message = "No database is connected: call Eventic.init(name=..., database_url=...) before using records."
        raise NotInitialised(message)
    return _store
