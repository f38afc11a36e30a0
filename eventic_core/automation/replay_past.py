"""The past in which an item is replayed: records as they were, its writes kept apart, its steps as recorded.

Owns what can be asked of the past. What cannot be answered from it is refused: a wrong answer would be believed.
"""

# ruff: noqa: ARG002, D102 - the ports document their methods, and have more arguments than are of use here

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from eventic_core.errors import HistoryRemoved, Invalid, NotFound, ReplayDiverged
from eventic_core.records import state
from eventic_core.records.port import StoredVersion, Written
from eventic_core.runtime.step_log import outcome_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.automation.item import Outcome
    from eventic_core.records.filters import Selection
    from eventic_core.records.port import Append, Work
    from eventic_core.store import PostgresStore


class Divergence:
    """Where the replay of one item cannot go on; kept, because the item's function may catch the error."""

    def __init__(self) -> None:
        self.error: ReplayDiverged | None = None

    def raise_(self, problem: str) -> NoReturn:
        """End the replay of the item."""
        self.error = self.error or ReplayDiverged(problem)
        raise self.error


class PastStore:
    """The records' port as of a moment; what the item writes is collected, and read again by id only.

    Args:
        store: Where records are.
        moment: As of when they are read.
        pins: Records of which the version is known that the item found, `None` where it found none: the moment is a
            clock's, a version is exact.
        outcome: Collects what is written and enqueued.
        divergence: Told where the past has no answer.
    """

    def __init__(
        self,
        store: PostgresStore,
        moment: datetime,
        pins: Mapping[UUID, StoredVersion | None],
        outcome: Outcome,
        divergence: Divergence,
    ) -> None:
        self.max_record_bytes = store.max_record_bytes
        self.moment = moment
        self._store = store
        self._pins = pins
        self._outcome = outcome
        self._divergence = divergence

    def __getattr__(self, name: str) -> Any:
        self.refuse(f"It asks the store for {name}, of which there is no past.")

    def refuse(self, problem: str) -> NoReturn:
        """End the replay of the item."""
        self._divergence.raise_(problem)

    # -- writing

    def begin(self) -> PastTransaction:
        return PastTransaction(self, self._outcome)

    def join(self, _session: Any) -> NoReturn:
        self.refuse("It writes records in a transaction of its own, Eventic.using(), which a replay cannot take back.")

    def append(self, appends: Sequence[Append], tx: Any = None, *, work: Sequence[Work] = ()) -> list[Written]:
        self._outcome.appends.extend(appends)
        self._outcome.work.extend(work)
        return [Written(append, state.provisional(append)) for append in appends]

    def enqueue(self, work: Sequence[Work], tx: Any = None) -> None:
        self._outcome.work.extend(work)

    def load(self, appends: Iterable[Append], tx: Any = None) -> list[UUID]:
        made = list(appends)
        self._outcome.appends.extend(made)
        return [append.id for append in made]

    # -- reading

    def head(self, record_id: UUID, tx: Any = None) -> StoredVersion | None:
        own = [append for append in self._outcome.appends if append.id == record_id]
        return as_stored(own[-1]) if own else self._found(record_id)

    def version(self, record_id: UUID, version: int, tx: Any = None) -> StoredVersion | None:
        own = [append for append in self._outcome.appends if (append.id, append.version) == (record_id, version)]
        return as_stored(own[-1]) if own else self._store.version(record_id, version)

    def at(self, record_id: UUID, moment: datetime, tx: Any = None) -> StoredVersion | None:
        return self._found(record_id) if moment >= self.moment else self._store.at(record_id, moment)

    def history(self, record_id: UUID, *, limit: int | None, before: int | None, tx: Any = None) -> list[StoredVersion]:
        own = [as_stored(append) for append in reversed(self._outcome.appends) if append.id == record_id]
        found = self._found(record_id)
        last = -1 if found is None else found.version
        bound = last + 1 if before is None else min(before, last + 1)
        own = [row for row in own if before is None or row.version < before][:limit]
        left = None if limit is None else limit - len(own)
        return own + self._store.history(record_id, limit=left, before=bound)

    def select(self, selection: Selection, tx: Any = None) -> list[StoredVersion]:
        with self._kept():
            return self._as_found(self._store.select(self._then(selection)))

    def count(self, selection: Selection, tx: Any = None) -> int:
        with self._kept():
            return self._store.count(self._then(selection))

    def stream(self, selection: Selection, tx: Any = None) -> Iterator[StoredVersion]:
        with self._kept():
            return iter(self._as_found(self._store.stream(self._then(selection))))

    def changes(self, *_: Any, **__: Any) -> NoReturn:
        self.refuse("It reads the change feed, which goes on: a replay has no answer to that.")

    def written_by(self, *_: Any, **__: Any) -> NoReturn:
        self.refuse("It asks what a run wrote, which a replay has no answer to.")

    def _found(self, record_id: UUID) -> StoredVersion | None:
        if record_id in self._pins:
            return self._pins[record_id]
        found = self._store.at(record_id, self.moment)
        if found is None and self._store.version(record_id, 0) is None and self._store.head(record_id) is not None:
            self.refuse(
                f"It reads record {record_id}, but what that was as of {self.moment.isoformat()} is not stored any "
                "more: retention has removed it."
            )
        return found

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except HistoryRemoved as error:
            self.refuse(f"It makes a query: {error}")

    def _as_found(self, rows: Iterable[StoredVersion]) -> list[StoredVersion]:
        found = ((row, self._pins.get(row.id, row)) for row in rows)
        return [pin for _row, pin in found if pin is not None and not pin.stamp.tombstone]

    def _then(self, selection: Selection) -> Selection:
        if selection.moment is not None:
            return replace(selection, moment=min(selection.moment, self.moment))
        changed = {append.class_type for append in self._outcome.appends} & set(selection.class_types)
        if changed:
            self.refuse(
                f"It queries {', '.join(sorted(changed))} after it changed a record of that class: the past does not "
                "hold the change, so the answer would be wrong. Read by id, or query before changing."
            )
        return replace(selection, moment=self.moment)


class PastTransaction:
    """The transaction of an item that is replayed: what it wrote last can be taken back, and nothing is sent."""

    def __init__(self, store: PastStore, outcome: Outcome) -> None:
        self._store = store
        self._outcome = outcome
        self._marks: dict[str, tuple[int, int]] = {}

    def __getattr__(self, name: str) -> Any:
        self._store.refuse(
            f"It uses a database transaction of its own ({name}), as for SQL: nothing but records can be replayed."
        )

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        del self._outcome.appends[:], self._outcome.work[:]

    def on_rollback(self, undo: Callable[[], object]) -> None:
        pass

    def savepoint(self) -> str:
        name = str(len(self._marks))
        self._marks[name] = (len(self._outcome.appends), len(self._outcome.work))
        return name

    def rollback_to(self, savepoint: str) -> None:
        appends, work = self._marks[savepoint]
        del self._outcome.appends[appends:], self._outcome.work[work:]


class RecordedSteps:
    """Gives what steps gave when they were called: the first call of a step what its first call gave, and so on.

    Args:
        entries: What was recorded.
        divergence: Told of a call of which nothing was recorded.
    """

    def __init__(self, entries: Sequence[dict[str, Any]], divergence: Divergence) -> None:
        self._left: dict[str, deque[dict[str, Any]]] = {}
        for entry in entries:
            self._left.setdefault(entry["name"], deque()).append(entry)
        self._called: list[str] = []
        self._divergence = divergence

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Name the steps called so far."""
        return [{"name": name} for name in self._called]

    def call(self, name: str, _function: Callable[[], Any]) -> Any:
        """Give a step's recorded result, or raise its error; the function is not called."""
        self._called.append(name)
        left = self._left.get(name)
        if not left:
            count = self._called.count(name)
            self._divergence.raise_(
                f"{name}() has no recorded result for call {count} of it, and a replay calls no step. The item did not "
                "call it then, or its run is older than the recording of steps."
            )
        try:
            result, error = outcome_of(left.popleft())
        except (NotFound, Invalid) as unreadable:
            self._divergence.raise_(f"What {name}() gave cannot be read here: {unreadable.message}")
        if error is not None:
            raise error
        return result

    async def call_async(self, name: str, function: Callable[[], Awaitable[Any]]) -> Any:
        """Give an async step's recorded result; see `call`."""
        return self.call(name, function)


def as_stored(append: Append) -> StoredVersion:
    """Give a version that is not stored as if it were."""
    return StoredVersion(append.id, append.version, append.class_type, append.data, state.provisional(append))
