"""Bulk creation: rows validated one by one and streamed into the store's COPY."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from eventic_core.errors import InvalidRecord
from eventic_core.records import state
from eventic_core.records.editing import current_scope, edit_scope
from eventic_core.records.port import current_store
from eventic_core.records.stamp import current_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from uuid import UUID

    from eventic_core.records.port import Append
    from eventic_core.records.record import Record

R = TypeVar("R", bound="Record")

_PROGRESS_ROWS = 1000


def create_many(
    cls: type[R], rows: Iterable[Mapping[str, Any] | R], progress: Callable[[int], None] | None
) -> list[UUID]:
    """Store every row as a record's version 0; see `Record.create_many`."""
    store = current_store()
    appends = _appends(cls, rows, progress, store.max_record_bytes)
    if current_scope() is None:
        return store.load(appends)
    with (
        edit_scope() as scope
    ):  # a level of its own, so that all or none of it is stored whoever goes on after an error
        return store.load(appends, scope.direct_transaction())


def _appends(
    cls: type[R], rows: Iterable[Mapping[str, Any] | R], progress: Callable[[int], None] | None, max_bytes: int
) -> Iterator[Append]:
    origin = current_origin()
    reason = origin.reason or "create_many"
    number = 0
    for number, row in enumerate(rows, start=1):
        try:
            draft = _draft(cls, row)
            draft._before_store()
            append = state.next_version(draft, origin, reason=reason, delete=False, restore=False, max_bytes=max_bytes)
        except InvalidRecord as error:
            message = f"Row {number}: {error.message}"
            raise InvalidRecord(message, errors=[{**e, "row": number} for e in error.errors]) from error
        assert append is not None
        yield append
        if progress is not None and number % _PROGRESS_ROWS == 0:
            progress(number)
    if progress is not None and number % _PROGRESS_ROWS != 0:
        progress(number)


def _draft(cls: type[R], row: Any) -> R:
    if isinstance(row, Mapping):
        return cls._new(dict(row))
    if isinstance(row, cls) and not row.is_stored:
        return row
    message = f"{row!r:.80} is neither a mapping of {cls.__name__}'s fields nor a draft of it. Nothing was stored."
    raise InvalidRecord(message)
