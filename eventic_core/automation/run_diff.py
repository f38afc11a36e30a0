"""`run.diff(other)`: two runs side by side, item by item: outcomes, and what each item did to records.

Owns which items belong together and how they compare. Bounded in memory: items are sorted by what they are recognised
by, in files where they are many, and compared a page at a time. What an item did to records is `effects`'.
"""

from __future__ import annotations

import heapq
import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json

from eventic_core.automation.effects import EffectDifference, compare_effects, effects_of
from eventic_core.automation.executions import BatchExecution, ItemExecution
from eventic_core.automation.run_changes import run_history, writer_of
from eventic_core.errors import Invalid
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.diff import Change
from eventic_core.records.documents import same_value
from eventic_core.records.port import using_store
from eventic_core.records.state import from_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eventic_core.automation.run import Run
    from eventic_core.automation.run_changes import Writer
    from eventic_core.store.run_history import ItemRow

_PAGE_ITEMS: Final = 200
_SORTED_ITEMS: Final = 100_000
"""Items sorted in memory at once; each such lot becomes a file."""
_COMPARED: Final = {
    "status": "status",
    "result": "result_payload",
    "error": "error_message",
    "error_type": "error_type",
    "attempts": "attempt_count",
}
_SHOWN_CHARACTERS: Final = 80
_RUN_FIELDS: Final = ("status", "attempt", "error_summary", "cancellation_reason", "tolerated_failures")


class _Sorted(NamedTuple):
    """An item, in the order in which two runs are gone through together; without a key it has no partner."""

    key: str
    number: int
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDiff:
    """What differs about one item; false if nothing does.

    Attributes:
        kind: `only in a` is the run that was asked, `only in b` the other one.
        key: What the item was recognised by; `None` if it had nothing of the kind.
        numbers: Its numbers in the two runs.
        item_ids: Its items in the two runs, the same if they ran the same batch.
        fields: What differs of `status`, `result`, `error`, `error_type` and `attempts`.
        seconds: How long its last attempt took in each run; `None` where it has not ended. No difference by itself.
        records: What it did to records in one run and not, or otherwise, in the other.
    """

    kind: Literal["only in a", "only in b", "different", "same"]
    key: Any
    numbers: tuple[int | None, int | None]
    item_ids: tuple[UUID | None, UUID | None]
    fields: tuple[Change, ...] = ()
    seconds: tuple[float | None, float | None] = (None, None)
    records: tuple[EffectDifference, ...] = ()

    def __bool__(self) -> bool:
        return self.kind != "same"

    def lines(self) -> Iterator[str]:
        """Render it as text."""
        sign = {"only in a": "-", "only in b": "+", "different": "~", "same": "="}[self.kind]
        number = next((number for number in self.numbers if number is not None), "?")
        parts = [f"{change.field} {_short(change.before)} -> {_short(change.after)}" for change in self.fields]
        if None not in self.seconds:
            parts.append(f"{self.seconds[0]:.3f} s -> {self.seconds[1]:.3f} s")
        text = "; ".join(parts) or self.kind
        yield f"{sign} item {number} ({_short(self.key)}): {text}"
        for record in self.records:
            yield f"    {record.line()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffCounts:
    """How many items two runs share and not."""

    only_in_a: int
    only_in_b: int
    same: int
    different: int


class RunDiff:
    """Two runs compared; iterating streams an `ItemDiff` for each item that differs, in the order of their keys.

    Each iteration reads anew. Not for an event loop: `await asyncio.to_thread(...)` around it.

    Attributes:
        a: The run that was asked, as it was stored then.
        b: The other one.
        same_automation: Whether both are runs of one automation.
        matched_by: `item_id`, `sequence_number`, the name of a field of the payload, or `key` for a function.
        fields: What differs of the runs themselves.
    """

    def __init__(self, a: Writer, b: Writer, key: str | Callable[[Any], Any] | None) -> None:
        self._writers = (a, b)
        self.a, self.b = a.run, b.run
        self._batches = (_batches(a.run), _batches(b.run))
        self._key = key
        same_batches = {batch for batch, _ in self._batches[0]} == {batch for batch, _ in self._batches[1]}
        by_position = "item_id" if same_batches else "sequence_number"
        self.matched_by = by_position if key is None else key if isinstance(key, str) else "key"
        self.same_automation = self.a.automation_id == self.b.automation_id
        pairs = ((name, getattr(self.a, name), getattr(self.b, name)) for name in _RUN_FIELDS)
        self.fields = tuple(Change(name, one, other) for name, one, other in pairs if one != other)

    def __iter__(self) -> Iterator[ItemDiff]:
        return (item for item in self.items() if item)

    def items(self) -> Iterator[ItemDiff]:
        """Stream every item, those without a difference too."""
        refuse_in_loop("a diff of runs", "asyncio.to_thread(list, run.diff(other))")
        with ExitStack() as files:
            one, other = (self._sorted(side, files) for side in (0, 1))
            pairs = _pairs(one, other)
            while page := list(islice(pairs, _PAGE_ITEMS)):
                yield from self._compared(page)

    def counts(self) -> DiffCounts:
        """Count the items, by comparing all of them."""
        found = dict.fromkeys(("only in a", "only in b", "same", "different"), 0)
        for item in self.items():
            found[item.kind] += 1
        only_in_a, only_in_b, same, different = found.values()
        return DiffCounts(only_in_a=only_in_a, only_in_b=only_in_b, same=same, different=different)

    def lines(self) -> Iterator[str]:
        """Render the comparison as text, line by line, the counts last."""
        yield f"a: run {self.a.id}"
        yield f"b: run {self.b.id}"
        if not self.same_automation:
            yield f"different automations: {self.a.automation_id}, {self.b.automation_id}"
        yield f"items matched by {self.matched_by}"
        for change in self.fields:
            yield f"{change.field} {_short(change.before)} -> {_short(change.after)}"
        found = dict.fromkeys(("same", "different", "only in a", "only in b"), 0)
        for item in self.items():
            found[item.kind] += 1
            if item:
                yield from item.lines()
        yield ", ".join(f"{count} {kind}" for kind, count in found.items())

    def _sorted(self, side: int, files: ExitStack) -> Iterator[_Sorted]:
        executions = [execution for _, execution in self._batches[side]]
        rows = run_history().items(self._writers[side].run.id, executions, payloads=self._key is not None)
        return _sort((_Sorted(self._key_of(row), row.number or 0, str(row.execution_id)) for row in rows), files)

    def _key_of(self, row: ItemRow) -> str:
        """Give the key as text that sorts; empty if the item has none."""
        if self._key is None:
            if self.matched_by == "item_id":
                return to_json(row.item_id).decode()
            return "" if row.sequence_number is None else f"{row.batch or 0:06}/{row.sequence_number:018}"
        payload = None if row.payload is None else from_json(row.payload)
        if isinstance(self._key, str):
            value = payload.get(self._key) if isinstance(payload, dict) else None
        else:
            value = self._key(payload)
        try:
            return "" if value is None else json.dumps(from_json(to_json(value)), sort_keys=True, ensure_ascii=False)
        except ValueError as error:
            message = f"The key of item {row.number} ({row.item_id}) is {value!r:.80}, which JSON cannot hold."
            raise Invalid(message) from error

    def _compared(self, pairs: list[tuple[_Sorted | None, _Sorted | None]]) -> Iterator[ItemDiff]:
        found = run_history().heads([UUID(item.execution_id) for pair in pairs for item in pair if item is not None])
        executions = {str(row.id): from_row(ItemExecution, row) for row in found.values()}
        effects = [
            effects_of(writer.workflow_ids, [item.number for pair in pairs if (item := pair[side]) is not None])
            for side, writer in enumerate(self._writers)
        ]
        for pair in pairs:
            key = next(item.key for item in pair if item is not None)
            did = [effects[side].get(item.number, []) if item else [] for side, item in enumerate(pair)]
            one, other = (executions.get(item.execution_id) if item else None for item in pair)
            yield _compare(self._shown(key), one, other, compare_effects(*did))

    def _shown(self, key: str) -> Any:
        if self.matched_by != "sequence_number" or self._key is not None or not key:
            return json.loads(key) if key else None
        batch, number = map(int, key.split("/"))
        return number if max(map(len, self._batches)) <= 1 else (batch, number)


def diff(run: Run | UUID | str, other: Run | UUID | str, *, key: str | Callable[[Any], Any] | None = None) -> RunDiff:
    """Compare two runs, of one automation or not, item by item; nothing is read of the items before it is asked for.

    Items belong together if they are the same item, where both runs ran the same batches; else if they have the same
    sequence number in batches that come at the same place in their runs. Where several have one key, they are matched
    in the order of their numbers.

    Args:
        run: The run, its id, or a workflow id of it.
        other: The run to compare it with.
        key: What recognises an item: a field of its payload, or a function of the payload whose result JSON can hold.
            Items for which it gives `None` have no partner.

    Raises:
        RecordNotFound: One of the runs is not stored.
        Invalid: A text is no id of a run, or is that of an undo.
        BlockingInLoop: In a running event loop.
    """
    refuse_in_loop("diff()", "asyncio.to_thread(run.diff, other)")
    a, b = writer_of(run), writer_of(other)
    for writer in (a, b):
        if writer.is_correction:
            message = (
                f"{writer.workflow_id} is an undo or a published replay, which has no items to compare: see changes() "
                "for what it wrote."
            )
            raise Invalid(message)
    return RunDiff(a, b, key)


def _batches(run: Run) -> list[tuple[UUID, UUID]]:
    """Give the batches of a run in order, each with its batch execution."""
    with using_store(None):
        found = BatchExecution.where(run_id=run.id).order_by(BatchExecution.fields.id).all()
    return [(execution.batch_id, execution.id) for execution in found]


def _sort(items: Iterable[_Sorted], files: ExitStack) -> Iterator[_Sorted]:
    """Sort by key, in memory if they are few, else by merging files that `files` removes."""
    waiting = iter(items)
    lots: list[Iterator[_Sorted]] = []
    while lot := sorted(islice(waiting, _SORTED_ITEMS)):
        if not lots and len(lot) < _SORTED_ITEMS:
            return iter(lot)
        file = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115 - it is one
        file.writelines(json.dumps(item) + "\n" for item in lot)
        file.seek(0)
        lots.append(_Sorted(*json.loads(line)) for line in file)
    return heapq.merge(*lots)


def _pairs(one: Iterator[_Sorted], other: Iterator[_Sorted]) -> Iterator[tuple[_Sorted | None, _Sorted | None]]:
    """Go through two sorted sequences together; what has no key or no partner comes alone."""
    a, b = next(one, None), next(other, None)
    while a is not None or b is not None:
        if a is not None and (b is None or not a.key or a.key < b.key):
            yield a, None
            a = next(one, None)
        elif a is None or b is None or not b.key or b.key < a.key:
            yield None, b
            b = next(other, None)
        else:
            yield a, b
            a, b = next(one, None), next(other, None)


def _compare(
    key: Any, one: ItemExecution | None, other: ItemExecution | None, records: tuple[EffectDifference, ...]
) -> ItemDiff:
    fields: tuple[Change, ...] = ()
    kind: Literal["only in a", "only in b", "different", "same"] = "only in a" if other is None else "only in b"
    if one is not None and other is not None:
        pairs = ((name, getattr(one, field), getattr(other, field)) for name, field in _COMPARED.items())
        fields = tuple(Change(name, a, b) for name, a, b in pairs if not same_value(a, b))
        kind = "different" if fields or records else "same"
    return ItemDiff(
        kind=kind,
        key=key,
        numbers=(one.number if one else None, other.number if other else None),
        item_ids=(one.item_id if one else None, other.item_id if other else None),
        seconds=(one.duration if one else None, other.duration if other else None),
        fields=fields,
        records=records,
    )


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, StrEnum) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
