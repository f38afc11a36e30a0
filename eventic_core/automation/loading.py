"""Loading a batch: rows of any iterable become the items of a new batch, all in one transaction, through COPY.

Owns the way of a row to an item's payload, and what happens to one that does not fit. Reading rows is `rows`'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sized
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from pydantic import ValidationError

from eventic_core.automation.definitions import Automation, Batch, Item, owner_of, violations_error
from eventic_core.automation.rows import RaggedRow, csv_rows, fields_of, json_rows, numbered, refuse_no_rows
from eventic_core.automation.schema import Schema, SchemaViolation, json_violations
from eventic_core.errors import Invalid, InvalidRecord
from eventic_core.records import Record, current_store, state
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import edit_scope
from eventic_core.records.stamp import current_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic import BaseModel

    from eventic_core.records.port import Append

__all__ = ["BadRow", "BadRows", "LoadedBatch", "RaggedRow", "csv_rows", "json_rows", "load_batch", "load_batch_async"]

BadRows = Literal["refuse", "set aside"]

_MOST_BAD_ROWS: Final = 1000


class BadRow(NamedTuple):
    """A row that did not become an item: its number, starting at 1, and all reasons."""

    number: int
    errors: tuple[SchemaViolation, ...]


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch that was loaded.

    Attributes:
        batch: The new batch.
        count: Its items.
        bad_rows: The rows that were set aside, the first thousand of them.
        bad_count: All rows that were set aside.
    """

    batch: Batch
    count: int
    bad_rows: tuple[BadRow, ...] = ()
    bad_count: int = 0


def load_batch(
    automation: Automation,
    name: str,
    rows: Iterable[Any],
    *,
    payload: dict[str, Any] | None = None,
    item_model: type[BaseModel] | None = None,
    bad_rows: BadRows = "refuse",
    progress: bool | Callable[[int], None] = False,
) -> LoadedBatch:
    """Store a batch and an item for each row, all or none, in the open scope's transaction or one of its own.

    The rows are read once, a few thousand ahead of what is stored, outside the transaction unless the caller has one
    open. An item's `sequence_number` is the number of its row, starting at 1.

    Args:
        automation: What the batch is for; must be stored.
        name: The batch's, new for the automation.
        rows: Any JSON values; models and records become their fields, records with their `id`.
        payload: The batch's.
        item_model: Judges the rows instead of the automation's `item_schema`; what it makes of them is stored as JSON.
        bad_rows: `"refuse"` stores nothing if a row is bad, `"set aside"` leaves the bad ones out.
        progress: `True` shows a bar on the terminal; a function is called with the number of rows read so far,
            every thousand rows and at the end.

    Raises:
        DuplicateKey: The automation has a batch of that name; no row was read.
        Invalid: There are no rows. Nothing is stored.
        InvalidRecord: A row is bad, or all are: names the number of the first, starting at 1, and every path in it;
            or the batch itself is. Nothing is stored.
    """
    refuse_in_loop("load_batch()", "load_batch_async()")
    if bad_rows not in get_args(BadRows):
        message = f'load_batch(bad_rows={bad_rows!r}): say "refuse" or "set aside".'
        raise Invalid(message)
    refuse_no_rows(rows)
    outside = copy_context()
    with edit_scope(default_reason="load_batch", call="load_batch()", instead="load_batch_async()") as scope:
        batch = Batch(automation_id=automation.id, name=name, payload=payload)
        scope.flush()
        items = _Items(batch, item_model, set_aside=bad_rows == "set aside")
        with _reporter(progress, rows, name) as report:
            current_store().load(items.made_of(numbered(rows, outside, report)), scope.direct_transaction())
        items.require_some()
    return LoadedBatch(batch, items.count, tuple(items.bad_rows), items.bad_count)


async def load_batch_async(
    automation: Automation,
    name: str,
    rows: Iterable[Any],
    *,
    payload: dict[str, Any] | None = None,
    item_model: type[BaseModel] | None = None,
    bad_rows: BadRows = "refuse",
    progress: bool | Callable[[int], None] = False,
) -> LoadedBatch:
    """Load a batch without blocking the event loop, the rows are read in a thread; see `load_batch`."""
    return await in_thread(
        load_batch,
        automation,
        name,
        rows,
        payload=payload,
        item_model=item_model,
        bad_rows=bad_rows,
        progress=progress,
    )


class _Items:
    """Makes items of rows, and keeps account of both."""

    def __init__(self, batch: Batch, item_model: type[BaseModel] | None, *, set_aside: bool) -> None:
        self._batch = batch
        self._model = item_model
        self._set_aside = set_aside
        definition: dict[str, Any] | None = owner_of(batch, Automation, "automation_id").record.item_schema
        self._schema = Schema(definition if definition is not None else {})
        self._origin = current_origin()
        self._max_bytes = current_store().max_record_bytes
        self.count = 0
        self.bad_rows: list[BadRow] = []
        self.bad_count = 0

    def made_of(self, rows: Iterator[tuple[int, Any]]) -> Iterator[Append]:
        """Make version 0 of an item of each row that is good."""
        for number, row in rows:
            try:
                append = self._append(number, self._payload(row))
            except _Bad as bad:
                self._put_aside(BadRow(number, bad.errors))
            else:
                self.count += 1
                yield append

    def require_some(self) -> None:
        """Refuse a batch without items.

        Raises:
            Invalid: No row was good.
        """
        if self.count:
            return
        if self.bad_rows:
            raise violations_error(
                f"All {self.bad_count:,} rows of batch {self._batch.name!r} are bad; row {self.bad_rows[0].number}",
                self.bad_rows[0].errors,
                row=self.bad_rows[0].number,
            )
        message = f"Batch {self._batch.name!r} would be empty: the iterable gave no row. Nothing was stored."
        raise Invalid(message)

    def _put_aside(self, bad: BadRow) -> None:
        if not self._set_aside:
            raise violations_error(f"Row {bad.number}", bad.errors, row=bad.number)
        self.bad_count += 1
        if len(self.bad_rows) < _MOST_BAD_ROWS:
            self.bad_rows.append(bad)

    def _payload(self, row: Any) -> Any:
        """Give what is to be stored of a row; raises `_Bad`."""
        if isinstance(row, RaggedRow):
            raise _Bad([SchemaViolation((), row.problem)])
        value = fields_of(row) if isinstance(row, Record) else row
        if self._model is None:
            found = self._schema.validate(value)
            if not found.valid:
                raise _Bad(found.errors)
            return value
        try:
            made = self._model.model_validate(value)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise _Bad([SchemaViolation(p["loc"], p["msg"]) for p in problems]) from error
        document = made.model_dump(mode="json", by_alias=True, exclude_computed_fields=True)
        if refused := json_violations(document):
            raise _Bad(refused)
        return document

    def _append(self, number: int, payload: Any) -> Append:
        draft = Item.draft({"batch_id": self._batch.id, "sequence_number": number, "payload": payload})
        try:
            append = state.next_version(
                draft,
                self._origin,
                reason=self._origin.reason or "load_batch",
                delete=False,
                restore=False,
                max_bytes=self._max_bytes,
            )
        except InvalidRecord as error:  # too large, or a character that Postgres cannot store
            raise _Bad([SchemaViolation((), error.message)]) from error
        assert append is not None
        return append


class _Bad(Exception):
    def __init__(self, errors: Iterable[SchemaViolation]) -> None:
        super().__init__()
        self.errors = tuple(errors)


@contextlib.contextmanager
def _reporter(progress: bool | Callable[[int], None], rows: object, name: str) -> Iterator[Callable[[int], object]]:
    if not isinstance(progress, bool):
        yield progress
        return
    from eventic_core.automation.terminal import progress_bar

    total = len(rows) if isinstance(rows, Sized) else None
    with progress_bar(total, f"loading {name}", show=progress) as bar:
        yield bar.update
