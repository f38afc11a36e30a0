"""What people do to a run that goes on or has ended: pause, resume, cancel, tolerate, redrive; watching it."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any
from uuid import UUID, uuid4

import pytest
from conftest import until
from runs import counted, ended, executions, moves, numbered, started, statuses

from eventic_core import BlockingInLoop, Eventic, Invalid, Record, ResultTimeout, RunNotFound
from eventic_core.automation import (
    BatchExecution,
    ExecutionStatus,
    InvalidStateError,
    Item,
    ItemContext,
    Retry,
    Run,
    automation,
)
from eventic_core.automation.executions import item_execution_id
from eventic_core.runtime.process import process
from eventic_core.store.counters import CounterTable

pytestmark = pytest.mark.usefixtures("workers")
S = ExecutionStatus
GATE = threading.Event()
BROKEN: set[int] = set()
CALLS: Counter[tuple[UUID, int]] = Counter()


@pytest.fixture(autouse=True)
def open_gate() -> Iterator[None]:
    GATE.set()
    BROKEN.clear()
    CALLS.clear()
    yield
    GATE.set()


class Fruit(Record, class_type="ControlFruit"):
    number: int


@automation("control: gated", concurrency=2, group_size=5, retry=Retry(max_attempts=2, delay_seconds=0))
def gated(item: dict[str, int], context: ItemContext) -> int:
    number = item["number"]
    CALLS[context.run_id, number] += 1
    assert GATE.wait(100)
    if number in BROKEN:
        raise (ValueError if number % 2 else KeyError)(f"item {number} is broken")
    Fruit(number=number)
    return number


def fruit_of(run: Run) -> list[int]:
    return sorted(fruit.number for fruit in Fruit.where().all() if str(fruit.stamp.workflow_id).startswith(str(run.id)))


def calls_of(run: Run) -> dict[int, int]:
    """Give how often the function was called for each item of a run."""
    return {number: count for (run_id, number), count in CALLS.items() if run_id == run.id}


def begun(run: Run) -> Run:
    """Wait until workers are at the run's items."""
    until(lambda: calls_of(run))
    return run


# -- pause and resume


def test_a_paused_run_begins_no_more_items_and_goes_on_when_resumed() -> None:
    GATE.clear()
    run = begun(started(gated, 40))
    with Eventic.acting(actor="ada"):
        run.pause()
    assert (run.paused, run.progress().state) == (True, "paused")
    GATE.set()
    until(lambda: run.progress().done >= 2 and run.progress().processing == 0)
    done = run.progress().done
    assert done < 40
    assert run.status == S.PROCESSING
    run.resume()
    run.wait(timeout_seconds=100)
    assert statuses(run) == ["COMPLETED"] * 40
    assert not run.paused
    assert next(version for version in run.history() if version.paused).stamp.actor == "ada"
    assert set(calls_of(run).values()) == {1}


def test_a_pause_in_a_part_of_a_unit_of_work_that_fails_is_taken_back() -> None:
    GATE.clear()
    run = begun(started(gated, 12))
    with Eventic.unit_of_work():
        with pytest.raises(LookupError), Eventic.unit_of_work():
            run.pause()
            raise LookupError
        kept = Fruit(number=-1)
    assert (run.paused, run.progress().state) == (False, "running")
    assert Fruit.hydrate(kept.id).number == -1
    GATE.set()
    assert run.wait(timeout_seconds=100).status == S.COMPLETED


def test_only_a_run_that_goes_on_is_paused_and_only_a_paused_one_resumed() -> None:
    run = ended(gated, 1)
    with pytest.raises(InvalidStateError, match="pause"):
        run.pause()
    with pytest.raises(InvalidStateError, match="resume"):
        run.resume()
    assert not run.paused


# -- cancel


def test_a_cancelled_run_ends_with_all_that_is_in_it_and_refuses_late_results() -> None:
    GATE.clear()
    run = begun(started(gated, 40))
    run.cancel("not wanted")
    GATE.set()
    assert (run.status, run.cancellation_reason, run.progress().is_ended) == (S.CANCELLED, "not wanted", True)
    assert counted(run.progress()) == {"CANCELLED": 40}
    (part,) = BatchExecution.where(run_id=run.id).all()
    assert part.status == S.CANCELLED
    handle: Any = Eventic.handle(str(run.id))
    until(lambda: handle.status() not in ("PENDING", "ENQUEUED", "DELAYED"))
    items = executions(run)
    assert {item.status for item in items} == {S.CANCELLED}
    assert {item.error_message for item in items} == {"not wanted"}
    assert fruit_of(run) == []


def test_items_that_a_cancelled_run_has_not_begun_are_cancelled_too() -> None:
    GATE.clear()
    run = begun(started(gated, 40))
    assert len(executions(run)) == 0  # the slices of those that have begun are not full yet
    run.cancel("not wanted")
    GATE.set()
    items = executions(run)
    assert [item.number for item in items] == list(range(1, 41))
    assert {tuple(moves(item)) for item in items} == {("PENDING", "CANCELLED")}
    assert len({item.item_id for item in items}) == 40
    assert {item.id for item in items} == {item_execution_id(run.id, item.item_id) for item in items}


def test_an_item_that_is_deleted_before_it_begins_is_no_part_of_the_run() -> None:
    GATE.clear()
    batch = gated.batch(str(uuid4()), numbered(40))
    run = begun(gated.start(batch))
    until(lambda: sum(part.planned for part in CounterTable(process().store.database).read(run.id)[1:]) == 40)
    (gone,) = Item.where(batch_id=batch.id, sequence_number=37).all()
    gone.delete()
    GATE.set()
    run.wait(timeout_seconds=100)
    assert run.status == S.COMPLETED
    assert counted(run.progress()) == {"COMPLETED": 39}
    assert fruit_of(run) == [number for number in range(1, 41) if number != 37]


def test_a_cancelled_run_is_not_cancelled_paused_or_redriven() -> None:
    GATE.clear()
    run = started(gated, 3)
    run.cancel("no")
    for call in (lambda: run.cancel("again"), run.pause, run.resume, run.redrive):
        with pytest.raises(InvalidStateError):
            call()
    assert run.cancellation_reason == "no"


def test_a_paused_run_may_be_cancelled() -> None:
    GATE.clear()
    run = begun(started(gated, 20))
    run.pause()
    run.cancel("enough")
    GATE.set()
    assert counted(run.progress()) == {"CANCELLED": 20}
    assert not run.paused


# -- redrive


def test_failed_items_are_done_again_in_a_new_attempt_of_the_run() -> None:
    BROKEN.update({2, 3, 5})
    run = ended(gated, 6)
    assert (run.status, counted(run.progress())) == (S.FAILED, {"COMPLETED": 3, "FAILED": 3})
    BROKEN.clear()
    assert run.redrive() == 3
    run.wait(timeout_seconds=100)
    assert (run.status, run.attempt, run.error_summary) == (S.COMPLETED, 2, None)
    assert counted(run.progress()) == {"COMPLETED": 6}
    assert run.progress().failures == {}
    second = executions(run)[1]
    assert moves(second) == [
        *["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "FAILED"],
        *["RETRYING", "PROCESSING", "COMPLETED"],
    ]
    assert (second.attempt_count, second.stamp.workflow_id) == (3, f"{run.id}:2")
    assert calls_of(run)[1] == 1
    assert moves_of_run(run) == ["PENDING", "PROCESSING", "FAILED", "RETRYING", "PROCESSING", "COMPLETED"]
    assert fruit_of(run) == [1, 2, 3, 4, 5, 6]


def moves_of_run(run: Run) -> list[str]:
    found: list[str] = []
    for version in reversed(run.history()):
        if found[-1:] != [str(version.status)]:
            found.append(str(version.status))
    return found


@pytest.mark.parametrize(
    ("filters", "again"),
    [
        ({"error_type": "KeyError"}, [2, 4]),
        ({"message": "item 3 is"}, [3]),
        ({"numbers": [4, 5, 6]}, [4, 5]),
        ({"error_type": "KeyError", "numbers": [4, 5]}, [4]),
    ],
)
def test_some_failed_items_are_done_again(filters: dict[str, Any], again: list[int]) -> None:
    BROKEN.update({2, 3, 4, 5})
    run = ended(gated, 6)
    BROKEN.clear()
    CALLS.clear()
    assert run.redrive(**filters) == len(again)
    run.wait(timeout_seconds=100)
    assert run.status == S.FAILED
    assert sorted(calls_of(run)) == again
    left = {2, 3, 4, 5} - set(again)
    assert {item.number for item in executions(run) if item.status == S.FAILED} == left


def test_each_redriven_item_has_all_its_attempts_anew() -> None:
    BROKEN.add(1)
    run = ended(gated, 1)
    for attempt in (2, 3):
        run.redrive()
        run.wait(timeout_seconds=100)
        assert (run.attempt, executions(run)[0].attempt_count) == (attempt, 2 * attempt)
    assert calls_of(run) == {1: 6}


def test_a_completed_run_that_tolerated_failures_may_be_redriven() -> None:
    BROKEN.add(2)
    run = ended(gated, 3, tolerated_failures=1)
    assert run.status == S.COMPLETED
    BROKEN.clear()
    run.redrive()
    run.wait(timeout_seconds=100)
    assert (run.status, counted(run.progress())) == (S.COMPLETED, {"COMPLETED": 3})


def test_an_unknown_filter_nothing_to_do_and_a_run_that_goes_on_are_refused() -> None:
    good = ended(gated, 1)
    version = good.version
    with pytest.raises(Invalid, match=r"knows no filter error_class; it knows error_type, message, numbers"):
        good.redrive(error_class="x")
    with pytest.raises(Invalid, match="nothing to redrive"):
        good.redrive()
    assert (good.version, good.attempt, good.status, good.progress().is_ended) == (version, 1, S.COMPLETED, True)
    GATE.clear()
    running = begun(started(gated, 1))
    with pytest.raises(InvalidStateError):
        running.redrive()


def test_what_nothing_executes_cannot_be_controlled() -> None:
    run = Run(automation_id=gated.stored().id)
    for call in (run.pause, run.resume, run.redrive, lambda: run.tolerate(3)):
        with pytest.raises(InvalidStateError):
            call()
    with pytest.raises(RunNotFound, match="Nothing executes"):
        run.progress()
    run.cancel("by hand")
    assert run.status == S.CANCELLED


# -- waiting and watching


def test_waiting_ends_with_the_run_or_its_time() -> None:
    GATE.clear()
    run = begun(started(gated, 3))
    with pytest.raises(ResultTimeout, match=r"did not end within 0\.05 s: 0 of 3 items are done"):
        run.wait(timeout_seconds=0.05)
    GATE.set()
    assert run.wait(timeout_seconds=100) is run
    assert run.status == S.COMPLETED


def test_a_run_is_watched_from_an_event_loop() -> None:
    async def watch() -> list[int]:
        batch = await asyncio.to_thread(gated.batch, str(uuid4()), [{"number": 1}, {"number": 2}])
        with pytest.raises(BlockingInLoop):
            gated.start(batch)
        run = await gated.start_async(batch, correlation_id="watched")
        seen = [progress.done async for progress in run.watch(seconds=0.01)]
        with pytest.raises(BlockingInLoop):
            run.progress()
        await run.wait_async()
        assert (run.status, run.correlation_id) == (S.COMPLETED, "watched")
        return seen

    seen = asyncio.run(watch())
    assert seen == sorted(seen)
    assert seen[-1] == 2


def test_progress_is_told_in_lines_where_there_is_no_terminal() -> None:
    run = started(gated, 30)
    told = io.StringIO()
    with redirect_stderr(told):
        run.wait(progress=True, timeout_seconds=100)
    assert f"run {run.id}" in told.getvalue()
    assert "30" in told.getvalue().splitlines()[-1]


def test_progress_says_how_long_it_took_and_how_fast() -> None:
    done = ended(gated, 10).progress()
    assert (done.total, done.done, done.state, done.status) == (10, 10, "ended", S.COMPLETED)
    assert done.elapsed_seconds > 0
    assert done.rate == pytest.approx(10 / done.elapsed_seconds)
    assert done.eta_seconds is None
    assert done.values()["done"] == 10


def test_an_execution_has_the_id_that_its_run_and_item_make() -> None:
    run = ended(gated, 3)
    for execution in executions(run):
        assert execution.id == item_execution_id(run.id, execution.item_id)
