"""Two runs side by side: which items belong together, what differs, and what they did to records."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from eventic_core import BlockingInLoop, Invalid, Record, RecordNotFound
from eventic_core.automation import run_diff
from eventic_core.automation.definitions import Automation, Batch, Item
from eventic_core.automation.executions import BatchExecution, ItemExecution
from eventic_core.automation.run import Run
from eventic_core.automation.run_diff import DiffCounts, ItemDiff, diff
from eventic_core.records import ABSENT
from eventic_core.records.stamp import running

if TYPE_CHECKING:
    from collections.abc import Callable


class Invoice(Record, class_type="DiffInvoice"):
    total: int
    paid: bool = False


class Line(Record, class_type="DiffLine"):
    invoice_id: UUID
    text: str


pytestmark = pytest.mark.usefixtures("eventic")


class Bench:
    """An automation whose runs are made by hand."""

    def __init__(self) -> None:
        self.automation = Automation(name=str(uuid4()))

    def batch(self, *payloads: Any) -> list[Item]:
        batch = Batch(automation_id=self.automation.id, name=str(uuid4()))
        pairs = enumerate(payloads, start=1)
        return [Item(batch_id=batch.id, sequence_number=number, payload=payload) for number, payload in pairs]

    def run(self, items: list[Item], work: Callable[[int, Any], Any] = lambda _number, _payload: None) -> Run:
        """Run over items: an error that `work` raises fails the item."""
        run = Run(automation_id=self.automation.id)
        run.start()
        batches = {
            batch_id: BatchExecution(run_id=run.id, batch_id=batch_id)
            for batch_id in dict.fromkeys(item.batch_id for item in items)
        }
        for number, item in enumerate(items, start=1):
            execution = ItemExecution(
                run_id=run.id, batch_execution_id=batches[item.batch_id].id, item_id=item.id, number=number
            )
            execution.start()
            try:
                with running(workflow_id=str(run.id), step_id=number):
                    result = work(number, item.payload)
            except ValueError as error:
                execution.fail(str(error), error_type="ValueError")
            else:
                execution.complete(result)
        run.complete()
        return run


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_runs_over_one_batch_are_matched_by_item(bench: Bench) -> None:
    def second(number: int, payload: Any) -> int:
        if number == 2:
            raise ValueError("no such customer")
        return int(payload) * (10 if number == 3 else 1)

    items = bench.batch(1, 2, 3, 4)
    one, other = bench.run(items, lambda _, payload: payload), bench.run(items, second)
    found = diff(one, other)
    assert (found.same_automation, found.matched_by, found.fields) == (True, "item_id", ())
    by_number = {item.numbers: item for item in found}
    assert by_number.keys() == {(2, 2), (3, 3)}
    failed = by_number[2, 2]
    assert failed.item_ids == (items[1].id, items[1].id)
    assert [(c.field, c.before, c.after) for c in failed.fields] == [
        ("status", "COMPLETED", "FAILED"),
        ("result", 2, None),
        ("error", None, "no such customer"),
        ("error_type", None, "ValueError"),
    ]
    assert [(c.field, c.before, c.after) for c in by_number[3, 3].fields] == [("result", 3, 30)]
    assert found.counts() == DiffCounts(only_in_a=0, only_in_b=0, same=2, different=2)


def test_attempts_differ_and_durations_are_only_shown(bench: Bench) -> None:
    items = bench.batch(1)
    one, other = bench.run(items), bench.run(items)
    third = Run(automation_id=bench.automation.id)
    [batch] = {item.batch_id for item in items}
    execution = ItemExecution(
        run_id=third.id,
        batch_execution_id=BatchExecution(run_id=third.id, batch_id=batch).id,
        item_id=items[0].id,
        number=1,
        max_attempts=2,
    )
    execution.start()
    execution.fail("once")
    execution.start()
    execution.update(status="COMPLETED", finished_at=execution.started_at + timedelta(seconds=9))
    assert list(diff(one, other)) == []
    [same] = diff(one, other).items()
    assert None not in same.seconds
    [item] = diff(one, third)
    assert [(c.field, c.before, c.after) for c in item.fields] == [("error", None, "once"), ("attempts", 1, 2)]
    assert item.seconds[1] == 9


def test_runs_over_other_batches_are_matched_by_sequence_number(bench: Bench) -> None:
    one = bench.run(bench.batch("a", "b", "c"), lambda _, payload: payload)
    other = bench.run(bench.batch("a", "B"), lambda _, payload: payload)
    found = diff(one, other)
    assert found.matched_by == "sequence_number"
    assert [(item.kind, item.key, item.numbers) for item in found] == [
        ("different", 2, (2, 2)),
        ("only in a", 3, (3, None)),
    ]
    assert diff(other, one).counts() == DiffCounts(only_in_a=0, only_in_b=1, same=1, different=1)


def test_items_of_several_batches_are_matched_batch_by_batch(bench: Bench) -> None:
    one = bench.run([*bench.batch(1, 2), *bench.batch(3, 4)], lambda _, payload: payload)
    other = bench.run([*bench.batch(1, 2), *bench.batch(3, 5)], lambda _, payload: payload)
    [item] = diff(one, other)
    assert (item.key, item.numbers) == ((2, 2), (4, 4))


@pytest.mark.parametrize("key", ["email", lambda payload: payload.get("email")], ids=["field", "function"])
def test_a_natural_key_matches_items_wherever_they_are(bench: Bench, key: Any) -> None:
    one = bench.run(bench.batch({"email": "a"}, {"email": "b"}, {}), lambda _, payload: payload)
    other = bench.run(bench.batch({"x": 1}, {"email": "b"}, {"email": "a"}, {"email": "ä"}), lambda _, p: p)
    found = diff(one, other, key=key)
    assert found.matched_by == ("email" if isinstance(key, str) else "key")
    assert [(item.kind, item.key, item.numbers) for item in found.items()] == [
        ("only in a", None, (3, None)),
        ("only in b", None, (None, 1)),
        ("same", "a", (1, 3)),
        ("same", "b", (2, 2)),
        ("only in b", "ä", (None, 4)),
    ]


def test_items_with_one_key_are_matched_in_order(bench: Bench) -> None:
    one = bench.run(bench.batch(1, 1, 2), lambda number, _: number)
    other = bench.run(bench.batch(2, 1, 1, 1), lambda number, _: number)
    found = diff(one, other, key=lambda payload: {"n": payload})
    assert [(item.key, item.numbers) for item in found.items()] == [
        ({"n": 1}, (1, 2)),
        ({"n": 1}, (2, 3)),
        ({"n": 1}, (None, 4)),
        ({"n": 2}, (3, 1)),
    ]


def test_many_items_are_sorted_in_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [f"{number * 7919 % 60:03}" for number in range(60)]
    one, other = bench.run(bench.batch(*payloads)), bench.run(bench.batch(*reversed(payloads)))
    expected = list(diff(one, other, key=str).items())
    monkeypatch.setattr(run_diff, "_SORTED_ITEMS", 7)
    monkeypatch.setattr(run_diff, "_PAGE_ITEMS", 11)
    found = list(diff(one, other, key=str).items())
    assert [item.key for item in found] == sorted(payloads)
    assert found == expected


def test_records_that_were_there_are_compared_by_what_the_item_set(bench: Bench) -> None:
    invoice, untouched, gone = Invoice(total=0), Invoice(total=0), Invoice(total=0)

    def first(_: int, __: Any) -> None:
        Invoice.hydrate(invoice.id).update(total=5, paid=True)
        Invoice.hydrate(untouched.id).total = 1
        Invoice.hydrate(untouched.id).total = 0

    def second(_: int, __: Any) -> None:
        Invoice.hydrate(invoice.id).total = 6
        Invoice.hydrate(gone.id).delete()

    items = bench.batch("x")
    [item] = diff(bench.run(items, first), bench.run(items, second))
    assert item.fields == ()
    changed, deleted = item.records
    assert (changed.class_type, changed.record_id) == ("DiffInvoice", invoice.id)
    assert [(c.field, c.before, c.after) for c in changed.changes] == [("paid", True, ABSENT), ("total", 5, 6)]
    assert (deleted.a, deleted.record_id) == (None, gone.id)
    assert deleted.b is not None
    assert deleted.b.kind == "delete"


def test_created_records_are_compared_without_their_ids(bench: Bench) -> None:
    def work(amounts: list[int]) -> Callable[[int, Any], None]:
        def create(_: int, __: Any) -> None:
            for amount in amounts:
                invoice = Invoice(total=amount)
                Line(invoice_id=invoice.id, text="fee")
            Invoice(total=99).delete()

        return create

    items = bench.batch("x")
    one, same, other = (bench.run(items, work(amounts)) for amounts in ([1, 2], [2, 1], [1, 3, 4]))
    assert list(diff(one, same)) == []
    [item] = diff(one, other)
    assert {(r.class_type, r.record_id) for r in item.records} == {("DiffInvoice", None), ("DiffLine", None)}
    invoices = [r for r in item.records if r.class_type == "DiffInvoice"]
    assert [(r.a and r.a.values["total"], r.b and r.b.values["total"]) for r in invoices] == [(2, 3), (None, 4)]
    assert [(c.field, c.before, c.after) for c in invoices[0].changes] == [("total", 2, 3)]
    [line] = [r for r in item.records if r.class_type == "DiffLine"]
    assert line.b is not None
    assert line.b.values["invoice_id"] == "<new DiffInvoice>"


def test_what_a_later_attempt_did_counts_to_the_same_item(bench: Bench) -> None:
    items = bench.batch("x")
    one = bench.run(items, lambda _, __: Invoice(total=2) and None)
    other = bench.run(items, lambda _, __: None)
    assert [len(item.records) for item in diff(one, other)] == [1]
    other.update(attempt=2)
    with running(workflow_id=f"{other.id}:2", step_id=1):
        Invoice(total=2)
    [same] = diff(one, other).items()
    assert same.records == ()


def test_runs_of_other_automations_and_other_fates_are_said_to_be(bench: Bench) -> None:
    one, other = bench.run(bench.batch("a")), Run(automation_id=Automation(name=str(uuid4())).id)
    other.start()
    other.fail("broken")
    found = diff(one, other)
    assert found.same_automation is False
    assert [(c.field, c.before, c.after) for c in found.fields] == [
        ("status", "COMPLETED", "FAILED"),
        ("error_summary", None, "broken"),
    ]
    assert next(line for line in found.lines() if line.startswith("different automations"))


def test_lines_tell_everything(bench: Bench) -> None:
    invoice = Invoice(total=0)

    def second(number: int, payload: Any) -> Any:
        if number == 2:
            Invoice.hydrate(invoice.id).total = 7
        return payload

    one = bench.run(bench.batch("a", "b", "c"), lambda _, payload: payload)
    other = bench.run(bench.batch("a", "B"), second)
    lines = list(diff(one, other).lines())
    assert lines[:3] == [f"a: run {one.id}", f"b: run {other.id}", "items matched by sequence_number"]
    assert lines[3].startswith("~ item 2 (2): result 'b' -> 'B'; ")
    assert lines[4] == f"    DiffInvoice {invoice.id}: nothing -> update; total ABSENT -> 7"
    assert lines[5:] == ["- item 3 (3): only in a", "1 same, 1 different, 1 only in a, 0 only in b"]


def test_a_diff_is_streamed_and_may_be_left_in_the_middle(bench: Bench) -> None:
    items = bench.batch(*range(230))
    one, other = bench.run(items), bench.run(items, lambda _, payload: payload)
    streamed = iter(diff(one, other))
    first = next(streamed)
    assert isinstance(first, ItemDiff)
    streamed.close()  # type: ignore[attr-defined]
    assert diff(one, other).counts() == DiffCounts(only_in_a=0, only_in_b=0, same=0, different=230)


def test_empty_runs_are_equal(bench: Bench) -> None:
    one, other = bench.run([]), bench.run([])
    assert diff(one, other).counts() == DiffCounts(only_in_a=0, only_in_b=0, same=0, different=0)
    assert list(diff(one, other)) == []


def test_what_cannot_be_compared_is_refused(bench: Bench) -> None:
    run = bench.run(bench.batch("a"))
    with pytest.raises(RecordNotFound):
        diff(run, uuid4())
    with pytest.raises(Invalid, match="is an undo"):
        diff(run, f"{run.id}:undo-1")
    with pytest.raises(Invalid, match="JSON cannot hold"):
        list(diff(run, run, key=lambda _: object()))

    async def ask() -> None:
        diff(run, run)

    with pytest.raises(BlockingInLoop):
        asyncio.run(ask())
