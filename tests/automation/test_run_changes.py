"""What a run wrote: every version, in order, with the item and attempt that wrote it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import BlockingInLoop, Eventic, Invalid, Record, RecordNotFound
from eventic_core.automation.executions import BatchExecution, ItemExecution
from eventic_core.automation.run import Run
from eventic_core.automation.run_changes import changes
from eventic_core.records import ABSENT
from eventic_core.records.diff import Change
from eventic_core.records.port import current_store
from eventic_core.records.stamp import running


class Customer(Record, class_type="ChangesCustomer"):
    name: str
    visits: int = 0


class Regular(Customer, class_type="ChangesRegular"):
    discount: int = 0


class Order(Record, class_type="ChangesOrder"):
    total: int


pytestmark = pytest.mark.usefixtures("eventic")


def item(run: Run, number: int | None, *, attempt: int = 1) -> Any:
    return running(workflow_id=str(run.id) if attempt == 1 else f"{run.id}:{attempt}", step_id=number)


def seen(run: Run, **filters: Any) -> list[tuple[str, int, int | None]]:
    return [(change.class_type, change.version, change.item_number) for change in changes(run, **filters)]


def test_changes_come_in_the_order_of_writing_with_item_and_attempt() -> None:
    run = Run(automation_id=uuid4(), attempt=2)
    customer = Customer(name="before")
    with item(run, 2), Eventic.acting(actor="ada"):
        customer.visits = 1
        order = Order(total=5)
    with item(run, 1):
        customer.visits = 2
    customer.name = "somebody else"
    with item(run, 2, attempt=2):
        order.delete()
    with item(run, None):
        Order(total=9)
    found = list(changes(run))
    assert [(c.class_type, c.version, c.before_version, c.item_number, c.attempt, c.kind) for c in found] == [
        ("ChangesCustomer", 1, 0, 2, 1, "update"),
        ("ChangesOrder", 0, None, 2, 1, "create"),
        ("ChangesCustomer", 2, 1, 1, 1, "update"),
        ("ChangesOrder", 1, 0, 2, 2, "delete"),
        ("ChangesOrder", 0, None, None, 1, "create"),
    ]
    assert found[0].record_id == customer.id
    assert found[0].actor == "ada"
    assert found[0].recorded_at == customer.history()[2].stamp.recorded_at
    assert [c.tombstone for c in found] == [False, False, False, True, False]


def test_diff_compares_with_the_version_before() -> None:
    run = Run(automation_id=uuid4())
    customer = Customer(name="a")
    with item(run, 1):
        customer.visits = 3
        order = Order(total=5)
        order.delete()
        Order.restore(order.id)
    changed, created, deleted, restored = changes(run)
    assert [(c.field, c.before, c.after) for c in changed.diff.changes] == [("visits", 0, 3)]
    assert (created.diff.before, created.diff.after) == (-1, 0)
    assert ("total", ABSENT, 5) in [(c.field, c.before, c.after) for c in created.diff.changes]
    assert not deleted.diff
    assert (deleted.kind, restored.kind) == ("delete", "restore")


def test_absent_stays_the_one_there_is_in_copies_and_pickles() -> None:
    change = Change("name", ABSENT, 1)
    for copied in (
        copy.copy(ABSENT),
        copy.deepcopy(ABSENT),
        *(pickle.loads(pickle.dumps(ABSENT, n)) for n in range(6)),
    ):
        assert copied is ABSENT
    assert copy.deepcopy(change).before is pickle.loads(pickle.dumps(change)).before is ABSENT


def test_diff_over_a_change_of_schema_compares_lifted_documents() -> None:
    class Old(Record, class_type="ChangesEvolved"):
        size: int

    run = Run(automation_id=uuid4())
    old = Old(size=1)

    class New(Record, class_type="ChangesEvolved", schema_version=2, upcasters={1: lambda d: {"width": d["size"]}}):
        width: int

    with item(run, 1):
        New.hydrate(old.id).width = 2
    [change] = changes(run)
    assert [(c.field, c.before, c.after) for c in change.diff.changes] == [("width", 1, 2)]


def test_changes_are_filtered_by_class_item_and_attempt() -> None:
    run = Run(automation_id=uuid4(), attempt=2)
    with item(run, 1):
        Customer(name="a")
        Regular(name="b")
    with item(run, 2, attempt=2):
        Order(total=1)
    assert seen(run, record_class=Customer) == [("ChangesCustomer", 0, 1), ("ChangesRegular", 0, 1)]
    assert seen(run, record_class=Regular) == [("ChangesRegular", 0, 1)]
    assert seen(run, item_number=2) == [("ChangesOrder", 0, 2)]
    assert seen(run, attempt=2) == [("ChangesOrder", 0, 2)]
    assert seen(run, attempt=1, record_class=Order) == []
    with pytest.raises(Invalid, match=r"no attempt 3: it has had 2"):
        changes(run, attempt=3)


def test_bookkeeping_is_left_out_unless_asked_for() -> None:
    run = Run(automation_id=uuid4())
    with item(run, None):
        run.start()
        batch = BatchExecution(run_id=run.id, batch_id=uuid4())
    with item(run, 1):
        execution = ItemExecution(run_id=run.id, batch_execution_id=batch.id, item_id=uuid4(), number=1)
        execution.start()
        Order(total=1)
    assert seen(run) == [("ChangesOrder", 0, 1)]
    assert [name for name, _, _ in seen(run, bookkeeping=True)] == [
        "Run",
        "BatchExecution",
        "ItemExecution",
        "ItemExecution",
        "ChangesOrder",
    ]


def test_a_stale_run_object_shows_the_later_attempts_too() -> None:
    run = Run(automation_id=uuid4())
    stale = Run.hydrate(run.id)
    run.attempt = 2
    with item(run, 1, attempt=2):
        Order(total=1)
    assert seen(stale) == [("ChangesOrder", 0, 1)]
    assert [change.attempt for change in changes(str(run.id))] == [2]


def test_other_runs_are_not_seen() -> None:
    run, other = Run(automation_id=uuid4()), Run(automation_id=uuid4())
    with item(other, 1):
        Order(total=1)
    with running(workflow_id=f"{run.id}-b1", step_id=1):
        Order(total=2)
    assert seen(run) == []


def test_many_changes_are_streamed_and_may_be_left_in_the_middle() -> None:
    run = Run(automation_id=uuid4())
    with item(run, 1):
        Order.create_many({"total": number} for number in range(3_000))
    streamed = changes(run)
    assert [next(streamed).after.document["total"] for _ in range(700)] == list(range(700))
    streamed.close()  # type: ignore[attr-defined]
    assert sum(1 for _ in changes(run)) == 3_000


def test_unknown_runs_and_other_ids_are_refused() -> None:
    with pytest.raises(RecordNotFound, match="No Run"):
        changes(uuid4())
    with pytest.raises(RecordNotFound, match="No Run"):
        changes(Order(total=1).id)
    with pytest.raises(Invalid, match="no id of a run"):
        changes("nonsense")
    with pytest.raises(Invalid, match="no id of a run"):
        changes(f"{uuid4()}:undone-1")


def test_changes_are_refused_in_an_event_loop() -> None:
    run = Run(automation_id=uuid4())

    async def ask() -> None:
        changes(run)

    with pytest.raises(BlockingInLoop):
        asyncio.run(ask())


def test_written_by_and_changes_agree() -> None:
    run = Run(automation_id=uuid4())
    with item(run, 1):
        order = Order(total=1)
        order.total = 2
    rows = current_store().written_by(str(run.id))
    assert [row.stamp.version_id for row in rows] == [change.after.stamp.version_id for change in changes(run)]
