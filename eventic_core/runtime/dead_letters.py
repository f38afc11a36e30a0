"""Dead letters: the versions a handler gave up on, listed, tried again and discarded; `Eventic.dead_letters`.

Owns what an operator may do with them. When a version is set aside, and what a worker makes of a retry, is in
`handling`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from uuid import UUID

from eventic_core.errors import Conflict, Invalid, InvalidFilter, NotFound, RemoteError, StoreUnavailable
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.ids import new_id
from eventic_core.records.port import installed_store, using_store
from eventic_core.records.stamp import current_origin
from eventic_core.runtime import codec
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import Handle
from eventic_core.store.handlers import call_payload, handle_work, queue_of
from eventic_core.store.work import WorkTable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from eventic_core.records.port import Work
    from eventic_core.store import PostgresStore
    from eventic_core.store.progress import DeadLetter as StoredLetter
    from eventic_core.store.transaction import PostgresTransaction

STATES: Final = ("open", "retried", "done", "discarded")
"""The states of a dead letter: `retried` is one that a worker is to try again, `done` one it then succeeded with."""
ALL: Final = "all"

LetterId: TypeAlias = UUID | str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A version a handler gave up on, as it was when it was read; moments are aware UTC.

    Attributes:
        class_type: The record's class.
        version: The version of the record that could not be handled.
        attempts: How often the handler was called for it.
        error: What the last attempt raised; a `RemoteError` if this process does not know its class.
        state: One of `STATES`.
        settled_at: When it took that state; `None` while it has been open from the first.
        settled_by: The actor who retried or discarded it.
    """

    id: UUID
    handler: str
    class_type: str
    record_id: UUID
    version: int
    attempts: int
    error: Exception = field(compare=False)
    failed_at: datetime
    state: str
    settled_at: datetime | None
    settled_by: str | None


Letters: TypeAlias = list[DeadLetter]
Handles: TypeAlias = list[Handle[None]]


class DeadLetters:
    """The dead letters of the connected database.

    Each call is a transaction of its own, whatever scope is open. `Eventic.acting(actor=...)` says who settles them.
    """

    def list(self, handler: str | None = None, *, state: str = "open", limit: int = 100) -> Letters:
        """List dead letters, newest first.

        Args:
            handler: Only of the handler with this name.
            state: One of `STATES`, or `"all"`.
            limit: How many at most, 1 or more.

        Raises:
            InvalidFilter: No letter can have the state, or the limit is below 1.
        """
        if state not in (*STATES, ALL):
            message = f"No dead letter has the state {state!r}. They are {', '.join(STATES)}; {ALL!r} is any."
            raise InvalidFilter(message)
        if limit < 1:
            message = f"limit={limit}: a page of dead letters holds at least one."
            raise InvalidFilter(message)
        states = STATES if state == ALL else (state,)
        found = _store("list").progress.dead_letters(handler=handler, states=states, limit=limit)
        return [_decoded(letter) for letter in found]

    def get(self, letter_id: LetterId) -> DeadLetter:
        """Read one dead letter.

        Raises:
            NotFound: None has the id.
        """
        return _decoded(_find(_store("get"), _uuid(letter_id)))

    def retry(self, ids: LetterId | Iterable[LetterId]) -> Handles:
        """Let a worker handle exactly these versions once more: all of them are enqueued, or none.

        The newer versions of a record, which were handled meanwhile, are not handled again. A letter whose handler
        succeeds is `done`; one that fails again is `open` again.

        Args:
            ids: Of one letter or of several, which must be open.

        Returns:
            A handle for each, in their order: its run ends when the attempt is over, however that went.

        Raises:
            NotFound: There is no such letter.
            Conflict: One is not open. Nothing is enqueued.
        """
        store, letters = _store("retry"), prepared(ids)
        with store.transaction() as tx:
            return retry_in(letters, tx)

    def discard(self, ids: LetterId | Iterable[LetterId]) -> None:
        """Give these versions up for good: all of them, or none. They stay listed under `discarded`.

        Args:
            ids: Of one letter or of several, which must be open.

        Raises:
            NotFound: There is no such letter.
            Conflict: One is not open. None is discarded.
        """
        store, letters = _store("discard"), prepared(ids)
        with store.transaction() as tx:
            discard_in(letters, tx)


def prepared(ids: LetterId | Iterable[LetterId]) -> list[StoredLetter]:
    """Read the letters that are to be settled, and see to the queues of their classes; before a transaction.

    Raises:
        NotFound: There is no such letter.
    """
    store = _store("retry")
    letters = [_find(store, letter_id) for letter_id in _unique(ids)]
    for class_type in {letter.class_type for letter in letters}:
        process().ensure_queue(queue_of(class_type))
    return letters


def retry_in(letters: list[StoredLetter], tx: PostgresTransaction) -> Handles:
    """Do `DeadLetters.retry` in a transaction of the caller's."""
    store = _store("retry")
    work = [_work(letter) for letter in letters]
    for letter in sorted(letters, key=lambda letter: letter.id):  # in one order, so that two do not deadlock
        _settle(store, letter, "retried", before=("open",), tx=tx)
    if work:
        _work_table(store).enqueue(work, tx, None)
    return [Handle(made.id) for made in work]


def discard_in(letters: list[StoredLetter], tx: PostgresTransaction) -> None:
    """Do `DeadLetters.discard` in a transaction of the caller's."""
    store = _store("discard")
    for letter in sorted(letters, key=lambda letter: letter.id):
        _settle(store, letter, "discarded", before=("open",), tx=tx)


def _store(call: str) -> PostgresStore:
    refuse_in_loop(f"dead_letters.{call}()", f"asyncio.to_thread(Eventic.dead_letters.{call}, ...)")
    return cast("PostgresStore", installed_store())


def _unique(ids: LetterId | Iterable[LetterId]) -> list[UUID]:
    given = [ids] if isinstance(ids, UUID | str) else ids
    return list(dict.fromkeys(_uuid(letter_id) for letter_id in given))


def _uuid(letter_id: LetterId) -> UUID:
    try:
        return letter_id if isinstance(letter_id, UUID) else UUID(letter_id)
    except (ValueError, AttributeError, TypeError):
        message = f"{letter_id!r} is no id of a dead letter: those are UUIDs."
        raise Invalid(message) from None


def _find(store: PostgresStore, letter_id: UUID) -> StoredLetter:
    letter = store.progress.dead_letter(letter_id)
    if letter is None:
        message = f"There is no dead letter {letter_id}. `eventic dead-letter list` shows the open ones."
        raise NotFound(message)
    return letter


def _settle(
    store: PostgresStore, letter: StoredLetter, state: str, *, before: tuple[str, ...], tx: PostgresTransaction
) -> None:
    actor = current_origin().actor
    if not store.progress.settle(letter.id, before=before, state=state, by=actor, tx=tx):
        now = store.progress.dead_letter(letter.id)
        by = f" by {now.settled_by}" if now is not None and now.settled_by else ""
        message = (
            f"Dead letter {letter.id} of handler {letter.handler} cannot be {state}: it is "
            f"{now.state if now is not None else 'gone'}{by}. Only an open one can be; nothing was changed."
        )
        raise Conflict(message)


def _work(letter: StoredLetter) -> Work:
    """Make the work of handling one version again, in the lane of its record."""
    again = handle_work(letter.handler, letter.class_type, letter.record_id, letter.version, again=new_id().hex)
    payload = {
        "handler": letter.handler,
        "class": letter.class_type,
        "record": letter.record_id,
        "version": letter.version,
        "letter": letter.id,
    }
    return again._replace(payload=call_payload(payload))


def _work_table(store: PostgresStore) -> WorkTable:
    """Enqueue for this version of the application if it works here, else for whichever is newest: we may be a tool."""
    if process().is_launched:
        return store.work
    newest: Any = None
    table = WorkTable(store.database, newest)
    table.serves, table.enqueued = store.work.serves, store.work.enqueued
    return table


def _decoded(letter: StoredLetter) -> DeadLetter:
    return DeadLetter(**{**letter._asdict(), "error": _error(letter.error)})


def _error(stored: Any) -> Exception:
    """Decode an error; one of which this process can make nothing, as its text."""
    try:
        with using_store(None):
            return codec.decode_error(stored)
    except StoreUnavailable:
        raise
    except Exception:  # noqa: BLE001 - validators of the user's run too; a letter can be looked at whatever they say
        return RemoteError(str(stored), "unknown")
