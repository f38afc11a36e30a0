"""What an attempt at an item does: its versions, its retries, what it may answer, and what it writes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from conftest import until
from pydantic import BaseModel, field_validator
from runs import counted, ended, executions, moves, statuses

from eventic_core import Eventic, Record, on
from eventic_core.automation import (
    Cancel,
    ExecutionStatus,
    ItemContext,
    ItemExecution,
    Retry,
    Run,
    Skip,
    Snooze,
    automation,
)

pytestmark = pytest.mark.usefixtures("workers")
S = ExecutionStatus
AGAIN = Retry(max_attempts=3, delay_seconds=0)
SOON = Retry(max_attempts=3, delay_seconds=0.1)
CALLS: Counter[Any] = Counter()
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    yield
    CALLS.clear()
    SEEN.clear()


class Tally(Record, class_type="AttemptTally", unique=["name"]):
    name: str
    count: int = 0


class Made(Record, class_type="AttemptMade"):
    number: int
    text: str = ""


class Handled(Record, class_type="AttemptHandled"):
    execution: UUID


@on.update(ItemExecution)
def attempt_ended(execution: ItemExecution) -> None:
    if execution.error_message == "handled":
        Handled(execution=execution.id)


def made_by(run: Run) -> list[tuple[int, str]]:
    """Give what the items of a run have made."""
    return sorted((made.number, made.text) for made in Made.where().all() if made.stamp.workflow_id == str(run.id))


# -- a good one


@automation("attempts: double")
def double(item: dict[str, int], context: ItemContext) -> dict[str, int]:
    SEEN.append(context)
    return {"twice": item["number"] * 2}


def test_an_item_goes_from_pending_to_completed_with_its_result_and_times() -> None:
    with Eventic.acting(actor="ada"):
        run = ended(double, 3, correlation_id="case 7")
    assert run.status == S.COMPLETED
    first, *_rest = executions(run)
    assert moves(first) == ["PENDING", "PROCESSING", "COMPLETED"]
    assert (first.result_payload, first.attempt_count, first.number) == ({"twice": 2}, 1, 1)
    assert first.started_at is not None
    assert first.finished_at is not None
    assert first.started_at <= first.finished_at
    for version in first.history():
        stamp = version.stamp
        assert (stamp.actor, stamp.correlation_id) == ("ada", "case 7")
        assert (stamp.workflow_id, stamp.step_id) == (str(run.id), 1)


def test_the_function_is_told_where_it_runs() -> None:
    run = ended(double, 2, correlation_id="case 8")
    by_number = {context.number: context for context in SEEN}
    second = executions(run)[1]
    assert by_number[2] == ItemContext(
        run_id=run.id,
        batch_execution_id=second.batch_execution_id,
        item_id=second.item_id,
        item_execution_id=second.id,
        number=2,
        attempt=1,
        correlation_id="case 8",
        idempotency_key=f"{run.id}:2",
    )


@automation("attempts: of one argument")
def alone(item: dict[str, int]) -> int:
    return item["number"]


def test_a_function_may_do_without_the_context() -> None:
    assert [execution.result_payload for execution in executions(ended(alone, 2))] == [1, 2]


def test_an_automation_is_called_as_its_function() -> None:
    assert alone({"number": 7}) == 7


class Customer(BaseModel):
    name: str
    age: int = 0

    @field_validator("name")
    @classmethod
    def capital(cls, name: str) -> str:
        return name.capitalize()


@automation("attempts: of a model", item_schema=Customer)
def greet(customer: Customer, context: ItemContext) -> Customer:
    return customer.model_copy(update={"age": customer.age + 1})


def test_an_item_schema_that_is_a_model_is_what_the_function_gets_and_a_result_may_be_one() -> None:
    run = ended(greet, [{"name": "ada", "age": 36}, Customer(name="bob")])
    assert [execution.result_payload for execution in executions(run)] == [
        {"name": "Ada", "age": 37},
        {"name": "Bob", "age": 1},
    ]


# -- retries


@automation("attempts: fails once", retry=AGAIN)
def fails_once(item: dict[str, int], context: ItemContext) -> int:
    if context.attempt == 1:
        raise ConnectionError("try again")
    return context.attempt


@automation("attempts: fails once, later", retry=SOON)
def fails_once_later(item: dict[str, int], context: ItemContext) -> int:
    return fails_once(item, context)


@pytest.mark.parametrize("function", [fails_once, fails_once_later], ids=["in its group", "in a later group"])
def test_a_failed_attempt_is_made_again(function: Any) -> None:
    run = ended(function, 20)
    assert run.status == S.COMPLETED
    for execution in executions(run):
        assert moves(execution) == ["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETED"]
        assert (execution.attempt_count, execution.result_payload) == (2, 2)
        error = execution.history()[2]
        assert (error.error_type, error.error_message) == ("ConnectionError", "try again")
    assert counted(run.progress()) == {"COMPLETED": 20}


def test_attempts_made_at_once_share_the_transaction_of_their_group(workers: str) -> None:
    run = ended(fails_once, 60)
    with psycopg.connect(workers) as connection:
        transactions = connection.execute(
            "select count(distinct xid) from eventic.records where class_type = 'ItemExecution' and version > 0 "
            "and workflow_id = %s",
            (str(run.id),),
        ).fetchone()
        groups = connection.execute(
            "select count(*) from dbos.workflow_status where name = 'eventic.items' and parent_workflow_id = %s",
            (str(run.id),),
        ).fetchone()
    assert statuses(run) == ["COMPLETED"] * 60
    assert transactions == groups


@automation(
    "attempts: always fails", retry={ConnectionError: AGAIN, LookupError: Retry(max_attempts=2, delay_seconds=0)}
)
def always_fails(item: dict[str, int], context: ItemContext) -> None:
    raise {1: ConnectionError, 2: ConnectionResetError, 3: KeyError, 4: ValueError}[item["number"]]("no")


def test_each_class_of_error_has_its_own_retries_and_others_have_none() -> None:
    run = ended(always_fails, 4)
    assert run.status == S.FAILED
    assert [execution.attempt_count for execution in executions(run)] == [3, 3, 2, 1]
    assert statuses(run) == ["FAILED"] * 4
    assert run.progress().failures == {"ConnectionError": 1, "ConnectionResetError": 1, "KeyError": 1, "ValueError": 1}
    assert run.error_summary is not None
    assert "4 of 4 items failed" in run.error_summary


def test_delays_grow_by_the_backoff_up_to_their_limit_less_a_random_share() -> None:
    policy = Retry(max_attempts=9, delay_seconds=1, backoff=3, max_delay_seconds=20)
    assert [policy.delay_after(attempts) for attempts in range(1, 5)] == [1, 3, 9, 20]
    jittered = Retry(max_attempts=9, delay_seconds=10, jitter=0.5)
    delays = {jittered.delay_after(1) for _ in range(50)}
    assert len(delays) > 1
    assert all(5 <= delay <= 10 for delay in delays)


# -- what it may answer


@automation("attempts: steered")
def steered(item: dict[str, int], context: ItemContext) -> Any:
    number = item["number"]
    CALLS[number] += 1
    if number == 1 and CALLS[1] < 3:
        return Snooze(0.1 if CALLS[1] == 1 else 0)
    return {2: Cancel("not wanted"), 3: Skip("nothing to do")}.get(number, context.attempt)


def test_an_item_may_be_snoozed_cancelled_or_skipped_by_its_function() -> None:
    run = ended(steered, 4)
    snoozed, cancelled, skipped, plain = executions(run)
    assert run.status == S.COMPLETED
    assert moves(snoozed) == ["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETED"]
    assert (snoozed.attempt_count, snoozed.result_payload, CALLS[1]) == (1, 1, 3)
    assert moves(cancelled) == ["PENDING", "PROCESSING", "CANCELLED"]
    assert cancelled.error_message == "not wanted"
    assert moves(skipped) == ["PENDING", "PROCESSING", "SKIPPED"]
    assert skipped.error_message == "nothing to do"
    assert plain.status == S.COMPLETED
    assert counted(run.progress()) == {"COMPLETED": 2, "CANCELLED": 1, "SKIPPED": 1}


@automation("attempts: unspeakable")
def unspeakable(item: dict[str, int]) -> Any:
    return {1: object(), 2: {"at": {1, 2}}, 3: float("nan")}[item["number"]]


def test_a_result_that_json_cannot_hold_fails_its_item_and_no_other() -> None:
    run = ended(unspeakable, 3)
    first, second, third = executions(run)
    assert (first.status, first.error_type) == (S.FAILED, "NotSerialisable")
    assert "attempts: unspeakable" in str(first.error_message)
    assert second.result_payload == {"at": [1, 2]}
    assert third.status == S.FAILED


@automation("attempts: no text for Postgres")
def with_zero(item: dict[str, int]) -> str:
    return "a\0b" if item["number"] == 2 else "ab"


def test_a_result_that_postgres_cannot_hold_fails_its_item_and_no_other() -> None:
    run = ended(with_zero, 3)
    assert statuses(run) == ["COMPLETED", "FAILED", "COMPLETED"]


class Speechless(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


UNSTORABLE: dict[int, Any] = {
    1: lambda: Made(number=1, text="a\0b"),
    2: lambda: Made(number=10**200_000),
    3: lambda: "\ud800",
    4: lambda: ValueError("half a pair: \ud800"),
    5: lambda: ValueError("zero: \0."),
    6: lambda: Speechless(),
    7: lambda: Cancel("zero: \0."),
    8: lambda: Skip("half a pair: \ud800"),
    9: lambda: Tally(name="".join(chr(0x4E00 + number % 20_000) for number in range(0, 900_000, 37))),
    10: lambda: tell("half a pair: \ud800"),
    11: lambda: 10**200_000,
    12: lambda: Snooze(1e300),
    13: lambda: f"zero: \0. {Made.where(number=13).count()}",
    14: lambda: Tally(name="fine"),
}


@Eventic.step(name="attempts: tell")
def tell(text: str) -> str:
    return text


@automation("attempts: unstorable")
def unstorable(item: dict[str, int]) -> Any:
    Made(number=item["number"], text="beside")
    found = UNSTORABLE[item["number"]]()
    if isinstance(found, Exception):
        raise found
    return None if isinstance(found, Record) else found


def test_what_cannot_be_stored_of_an_item_fails_it_with_the_reason_and_no_other() -> None:
    run = ended(unstorable, len(UNSTORABLE))
    found = {execution.number: execution for execution in executions(run)}
    outcomes = {number: (str(one.status), one.error_type) for number, one in found.items()}
    assert outcomes.pop(len(UNSTORABLE)) == ("COMPLETED", None)
    assert (outcomes.pop(7)[0], found[7].error_message) == ("CANCELLED", "zero: \\x00.")
    assert (outcomes.pop(8)[0], found[8].error_message) == ("SKIPPED", "half a pair: \\ud800")
    assert {status for status, _ in outcomes.values()} == {"FAILED"}, outcomes
    assert all(found[number].error_message for number in outcomes), outcomes
    assert (outcomes[4][1], outcomes[5][1], outcomes[6][1]) == ("ValueError", "ValueError", "Speechless")
    assert "half a pair" in str(found[4].error_message)
    assert "zero" in str(found[5].error_message)
    assert made_by(run) == [(7, "beside"), (8, "beside"), (len(UNSTORABLE), "beside")]


class Contested(Record, class_type="AttemptContested"):
    """Somebody else writes it each time before it can be stored."""

    count: int = 0

    def _before_store(self) -> None:
        if threading.current_thread().name != "rival" and self.count < 1_000:
            SEEN.append(self.count)
            rival = threading.Thread(target=outbid, args=(self.id,), name="rival")
            rival.start()
            rival.join()


def outbid(contested: UUID) -> None:
    with Eventic.acting(actor="rival"):
        Contested.hydrate(contested).update(count=1_000 + len(SEEN))


@automation("attempts: contested")
def contested(item: dict[str, Any]) -> None:
    Made(number=item["number"], text="contested")
    if item["contested"]:
        Contested.hydrate(item["contested"]).count = 1


def test_an_item_whose_record_others_always_write_first_fails_and_no_other() -> None:
    thing = Contested(count=1_000)
    run = ended(contested, [{"number": n, "contested": str(thing.id) if n == 2 else None} for n in (1, 2, 3)])
    assert statuses(run) == ["COMPLETED", "FAILED", "COMPLETED"]
    failed = executions(run)[1]
    assert failed.error_type == "VersionConflict"
    assert str(thing.id) in str(failed.error_message)
    assert made_by(run) == [(1, "contested"), (3, "contested")]
    assert Contested.hydrate(thing.id).stamp.actor == "rival"
    assert counted(run.progress()) == {"COMPLETED": 2, "FAILED": 1}


def refused_once(item: dict[str, Any], context: ItemContext) -> int:
    CALLS[item["number"]] += 1
    if CALLS[item["number"]] == 1:
        Contested.hydrate(item["contested"]).count = 1  # which is refused when the group is stored
    if CALLS[item["number"]] == 2:
        raise ConnectionError("try again")
    return CALLS[item["number"]]


REFUSED = [
    automation(f"attempts: refused, {retry.delay_seconds}", retry=retry)(refused_once) for retry in (AGAIN, SOON)
]


@pytest.mark.parametrize("function", REFUSED, ids=["in its group", "in a later group"])
def test_an_item_that_is_refused_and_then_fails_is_tried_again(function: Any) -> None:
    thing = Contested(count=1_000)
    run = ended(function, [{"number": 1, "contested": str(thing.id)}])
    assert run.status == S.COMPLETED
    assert (executions(run)[0].attempt_count, executions(run)[0].result_payload) == (2, 3)


# -- what it writes


@automation("attempts: writes", retry=AGAIN)
def writes(item: dict[str, int], context: ItemContext) -> None:
    made = Made(number=item["number"])
    made.text = "changed"
    if item["number"] == 2:
        raise ValueError("after it had written")


def test_what_a_failed_attempt_wrote_is_not_stored() -> None:
    run = ended(writes, 3)
    assert made_by(run) == [(1, "changed"), (3, "changed")]


@automation("attempts: adds up", concurrency=4, group_size=5)
def adds_up(item: dict[str, int], context: ItemContext) -> None:
    Tally.hydrate(item["tally"]).count += 1


def test_items_that_change_one_record_do_so_one_after_the_other() -> None:
    tally = Tally(name="of all")
    run = ended(adds_up, ({"tally": str(tally.id)} for _ in range(40)))
    assert set(statuses(run)) == {"COMPLETED"}
    tally.refresh()
    assert (tally.count, tally.version) == (40, 40)


@automation("attempts: unique keys")
def takes_key(item: dict[str, int]) -> None:
    Tally(name="the same" if item["number"] < 3 else str(item["number"]))


def test_an_item_that_takes_a_taken_key_fails_alone() -> None:
    run = ended(takes_key, 4)
    assert sorted(statuses(run)[:2]) == ["COMPLETED", "FAILED"]
    assert statuses(run)[2:] == ["COMPLETED", "COMPLETED"]
    assert {tally.name for tally in Tally.where().all()} >= {"the same", "3", "4"}


@automation("attempts: asks what it wrote")
def asks(item: dict[str, int], context: ItemContext) -> int:
    Made(number=item["number"], text="asked")
    found = Made.where(Made.fields.text == "asked", Made.fields.number == item["number"]).count()
    if item["number"] == 2:
        raise ValueError("after it had asked")
    return found


def test_an_item_that_queries_what_it_has_written_has_a_transaction_of_its_own() -> None:
    run = ended(asks, 3)
    assert [(execution.status, execution.result_payload) for execution in executions(run)] == [
        (S.COMPLETED, 1),
        (S.FAILED, None),
        (S.COMPLETED, 1),
    ]
    assert made_by(run) == [(1, "asked"), (3, "asked")]
    assert counted(run.progress()) == {"COMPLETED": 2, "FAILED": 1}


@automation("attempts: skips")
def skips(item: dict[str, int]) -> Skip:
    return Skip("handled")


def test_handlers_hear_of_the_moves_of_items() -> None:
    run = ended(skips, 5)
    until(lambda: Handled.where().count() == 5)
    assert {handled.execution for handled in Handled.where().all()} == {each.id for each in executions(run)}


# -- async functions and time


@automation("attempts: async", concurrency=8, timeout_seconds=5)
async def waits(item: dict[str, int], context: ItemContext) -> int:
    SEEN.append(("begin", item["number"]))
    await asyncio.sleep(0.05)
    Made(number=item["number"])
    SEEN.append(("end", item["number"]))
    return item["number"]


def test_items_of_an_async_function_overlap_and_write_each_for_itself() -> None:
    run = ended(waits, 16)
    assert [execution.result_payload for execution in executions(run)] == list(range(1, 17))
    assert [what for what, _number in SEEN] != ["begin", "end"] * 16
    written = [made for made in Made.where().all() if made.stamp.workflow_id == str(run.id)]
    assert sorted((made.number, made.stamp.step_id) for made in written) == [(n, n) for n in range(1, 17)]


RELEASED = threading.Event()


@automation("attempts: slow", timeout_seconds=0.2, retry=Retry(max_attempts=2, delay_seconds=0))
def slow(item: dict[str, int], context: ItemContext) -> str:
    Made(number=item["number"], text="too late")
    if item["number"] == 1 and context.attempt == 1:
        RELEASED.wait(30)
    return "done"


@automation("attempts: slow async", timeout_seconds=0.2, retry=Retry(max_attempts=2, delay_seconds=0))
async def slow_async(item: dict[str, int], context: ItemContext) -> str:
    Made(number=item["number"], text="too late")
    if item["number"] == 1 and context.attempt == 1:
        await asyncio.sleep(30)
    return "done"


@pytest.mark.parametrize("function", [slow, slow_async], ids=["sync", "async"])
def test_an_attempt_that_takes_too_long_fails_and_writes_nothing(function: Any) -> None:
    RELEASED.clear()
    run = ended(function, 2)
    RELEASED.set()
    first, second = executions(run)
    assert moves(first) == ["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETED"]
    assert first.history()[2].error_type == "TimeoutError"
    assert second.attempt_count == 1
    time.sleep(0.05)
    assert made_by(run) == [(1, "too late"), (2, "too late")]


# -- all of it at once, against the rows


@automation("attempts: of every kind", retry=AGAIN, concurrency=3, group_size=7)
def of_every_kind(item: dict[str, int], context: ItemContext) -> Any:
    number = item["number"]
    if number % 7 == 0 and context.attempt < 3:
        raise ConnectionError("later")
    if number % 11 == 0:
        raise ValueError("never")
    Made(number=number)
    return {5: Skip(), 6: Cancel()}.get(number, number)


def test_counters_are_what_the_rows_say(workers: str) -> None:
    run = ended(of_every_kind, 100)
    rows = Counter(statuses(run))
    progress = run.progress()
    assert counted(progress) == dict(rows)
    assert (progress.total, progress.done) == (100, 100)
    assert progress.failures == {"ValueError": rows["FAILED"]}
    assert made_by(run) == [(number, "") for number in range(1, 101) if number % 11]
    assert Run.hydrate(run.id).status == S.FAILED
