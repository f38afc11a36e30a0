"""Records in the body of a workflow and in a step: every write and read of a body is a step on record.

Two stores in front of the real one. `RecordingStore` turns each call into a step of the run's journal; `StepStore`
reads as usual and refuses to write, because a step may run twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from eventic_core.errors import Invalid, ScopeError, WriteInStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.records.filters import Selection
    from eventic_core.records.port import Append, Checkpoint, Cursor, StoredVersion, Transaction, Work, Written
    from eventic_core.runtime.journal import Journal
    from eventic_core.store import PostgresStore

_MOST_VERSIONS = 10_000
"""Of one read in a workflow's body: their ids are kept as long as the run is."""
_NAMED_RECORDS = 5


class RecordingStore:
    """The records' port in a workflow's body."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._store = journal.store
        self.max_record_bytes = journal.store.max_record_bytes

    # -- writing

    def begin(self) -> Transaction:
        message = (
            "In the body of a workflow, an edit or a unit of work is written at its end, as one step: a query that "
            "must see what it has changed, and SQL of your own, belong into a function with @Eventic.transaction()."
        )
        raise ScopeError(message)

    def join(self, _session: Any) -> Transaction:
        message = "Eventic.using() is not for the body of a workflow: write a function with @Eventic.transaction()."
        raise ScopeError(message)

    def append(
        self,
        appends: Sequence[Append],
        tx: Transaction | None = None,
        *,
        work: Sequence[Work] = (),
        checkpoint: Checkpoint | None = None,
    ) -> list[Written]:
        assert tx is None
        assert checkpoint is None
        return self._journal.write(f"write {_named(appends)}", appends, work)

    def enqueue(
        self, work: Sequence[Work], tx: Transaction | None = None, *, checkpoint: Checkpoint | None = None
    ) -> None:
        assert tx is None
        assert checkpoint is None
        for item in work:
            self._journal.enqueue(f"enqueue {item.name} on {item.queue}", lambda _step, item=item: item)  # type: ignore[misc]

    def load(self, appends: Iterable[Append], tx: Transaction | None = None) -> list[UUID]:
        message = (
            "create_many() in the body of a workflow would read its rows again when the run is repeated: call it in a "
            "function with @Eventic.transaction()."
        )
        raise ScopeError(message)

    # -- reading

    def head(self, record_id: UUID, tx: Transaction | None = None) -> StoredVersion | None:
        return _first(self._journal.read(f"read {record_id}", lambda: _listed(self._store.head(record_id))))

    def version(self, record_id: UUID, version: int, tx: Transaction | None = None) -> StoredVersion | None:
        name = f"read version {version} of {record_id}"
        return _first(self._journal.read(name, lambda: _listed(self._store.version(record_id, version))))

    def at(self, record_id: UUID, moment: datetime, tx: Transaction | None = None) -> StoredVersion | None:
        name = f"read {record_id} as of a moment"
        return _first(self._journal.read(name, lambda: _listed(self._store.at(record_id, moment))))

    def history(
        self, record_id: UUID, *, limit: int | None, before: int | None, tx: Transaction | None = None
    ) -> list[StoredVersion]:
        read = lambda: self._store.history(record_id, limit=limit, before=before)  # noqa: E731 - as its neighbours
        return self._read(f"read the history of {record_id}", read)

    def select(self, selection: Selection, tx: Transaction | None = None) -> list[StoredVersion]:
        return self._read(f"query {','.join(selection.class_types)}", lambda: self._store.select(selection))

    def count(self, selection: Selection, tx: Transaction | None = None) -> int:
        name = f"count {','.join(selection.class_types)}"
        return self._journal.value(name, lambda: self._store.count(selection))

    def stream(self, selection: Selection, tx: Transaction | None = None) -> Iterator[StoredVersion]:
        return iter(self.select(selection))

    def changes(self, class_types: Sequence[str] | None, after: Cursor, limit: int) -> list[StoredVersion]:
        return self._read("read the change feed", lambda: self._store.changes(class_types, after, limit))

    def written_by(self, workflow_id: str, tx: Transaction | None = None) -> list[StoredVersion]:
        return self._read(f"read what {workflow_id} wrote", lambda: self._store.written_by(workflow_id))

    def _read(self, name: str, read: Callable[[], list[StoredVersion]]) -> list[StoredVersion]:
        def bounded() -> list[StoredVersion]:
            rows = read()
            if len(rows) > _MOST_VERSIONS:
                message = (
                    f"{name}: {len(rows):,} versions at once in the body of a workflow, where each is kept on record; "
                    f"the most is {_MOST_VERSIONS:,}. Read them in a function with @Eventic.step() or transaction()."
                )
                raise Invalid(message)
            return rows

        return self._journal.read(name, bounded)


class StepStore:
    """The records' port in a step: reads as usual, no writes."""

    def __init__(self, store: PostgresStore, step: str) -> None:
        self._store = store
        self._step = step
        self.max_record_bytes = store.max_record_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        message = (
            f"{self._step}() is a step, which may run more than once, so it writes no records and enqueues nothing: "
            "return a value and write in the workflow, or make it @Eventic.transaction()."
        )
        raise WriteInStep(message)

    begin = join = append = enqueue = load = _refuse


def _named(appends: Sequence[Append]) -> str:
    """Name what is written, for the step's name; a new record has no name that a fork of the run could know."""
    names = [f"{a.class_type} {a.id} {a.version}" if a.version else f"new {a.class_type}" for a in appends]
    more = f" and {len(names) - _NAMED_RECORDS} more" if len(names) > _NAMED_RECORDS else ""
    return ", ".join(names[:_NAMED_RECORDS]) + more


def _listed(row: StoredVersion | None) -> list[StoredVersion]:
    return [] if row is None else [row]


def _first(rows: list[StoredVersion]) -> StoredVersion | None:
    return rows[0] if rows else None
