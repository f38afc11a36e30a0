"""Replaying a run: the same code comes to the same, other code is compared and published, and nothing is invented.

As a program, `test_replay.py URL RUN` publishes a replay slowly, to be killed.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import psycopg
import pytest
from sqlalchemy import text

from eventic_core import Eventic, Invalid, NotRegistered, Record, RecordNotFound, ScopeError, on
from eventic_core.automation import (
    ItemContext,
    ItemExecution,
    Retry,
    Run,
    Skip,
    Snooze,
    automation,
    declared,
    replay_findings,
)
from eventic_core.automation import replay as replays
from eventic_core.automation.run_changes import changes
from eventic_core.automation.undo import undo
from eventic_core.errors import BlockingInLoop, InvalidStateError
from eventic_core.records import ABSENT

SLOWLY = __name__ == "__main__"
MANY = 3_000


class Client(Record, class_type="ReplayClient"):
    name: str
    credit: int = 0
    tags: list[str] = []


class Letter(Record, class_type="ReplayLetter"):
    text: str
    client_id: UUID | None = None
    answers: UUID | None = None


class Desk(Record, class_type="ReplayDesk", unique=["place"]):
    place: str


class Slow(Record, class_type="ReplaySlow"):
    """Takes its time to be written, by the program that is killed."""

    number: int
    by: str = "run"

    def _before_store(self) -> None:
        if SLOWLY:
            time.sleep(0.001)


Work = Callable[[dict[str, Any], ItemContext], Any]
WORK: list[Work] = []
CALLED: list[Any] = []
SEEN: list[UUID] = []


@Eventic.step(name="replay_price")
def price(number: int) -> Any:
    CALLED.append(number)
    if number < 0:
        raise LookupError(f"no price {number}")
    return Decimal(number) / 4, ("a", number)


@Eventic.step(name="replay_fetch")
async def fetch(number: int) -> dict[str, int]:
    CALLED.append(number)
    await asyncio.sleep(0.001 * (5 - number))
    return {"fetched": number}


@Eventic.step(name="replay_opaque")
def opaque() -> object:
    CALLED.append("opaque")
    return object()


@Eventic.step(name="replay_outer")
def outer(number: int) -> str:
    return f"outer {price(number)[0]}"


RETRY = Retry(max_attempts=2, delay_seconds=0.01)


@automation("replayed", retry=RETRY)
def replayed(item: dict[str, Any], context: ItemContext) -> Any:
    return WORK[-1](item, context)


@automation("replayed in order", concurrency=1)
def replayed_in_order(item: dict[str, Any], context: ItemContext) -> Any:
    return WORK[-1](item, context)


@automation("replayed async")
async def replayed_async(item: dict[str, Any], context: ItemContext) -> Any:
    return await WORK[-1](item, context)


@automation("replayed slowly")
def replayed_slowly(item: dict[str, Any]) -> None:
    """Write a record, another one of it when it is replayed by the program."""
    slow = Slow(id=uuid5(NAMESPACE_URL, str(item["number"])), number=item["number"])
    if SLOWLY:
        slow.by = "replay"
        if item["number"] % 10 == 0:
            Slow(number=-item["number"], by="new")


@Eventic.transaction(name="replay_later")
def later(number: int) -> None:
    """Is never done in these tests: no worker listens to its queue."""


@on.create(Letter)
def see(letter: Letter) -> None:
    SEEN.append(letter.id)


@pytest.fixture(autouse=True)
def url(eventic: str) -> Iterator[str]:
    Eventic.launch()
    yield eventic
    WORK.clear()
    CALLED.clear()
    SEEN.clear()


def ran(work: Work, *rows: Any, how: Any = replayed) -> Run:
    """Run over rows with some work, to its end."""
    with_work(work)
    batch = how.batch(str(uuid4()), rows)
    run: Run = how.start(batch, correlation_id="case-7")
    run.wait(timeout_seconds=100)
    return run


def nothing(_record: Record) -> None:
    """Be the result of a function that only writes a record."""


def with_work(work: Work) -> None:
    WORK.append(work)


def count(url: str) -> tuple[int, int]:
    """Count versions and pieces of work."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select (select count(*) from eventic.records), (select count(*) from dbos.workflow_status)"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def execution(run: Run, number: int = 1) -> ItemExecution:
    [found] = ItemExecution.where(run_id=run.id, number=number).all()
    return found


def fields(item: Any) -> dict[str, tuple[Any, Any]]:
    return {change.field: (change.before, change.after) for change in item.fields}


def numbers(published: Any) -> tuple[int, int, int, int, int]:
    return (
        published.created,
        published.changed,
        published.tombstoned,
        published.unchanged,
        published.conflict_count,
    )


# -- steps are recorded


def test_what_steps_gave_is_kept_with_the_item() -> None:
    def work(item: dict[str, Any], context: ItemContext) -> Any:
        if item["n"] == 0:
            return None
        try:
            price(-item["n"])
        except LookupError as error:
            return [outer(4), str(error)]

    run = ran(work, {"n": 0}, {"n": 1})
    assert execution(run, 1).steps is None
    kept = execution(run, 2).steps
    assert kept is not None
    assert [entry["name"] for entry in kept] == ["replay_price", "replay_outer"]
    assert kept[1]["result"] == "outer 1"
    assert kept[0]["error"]["m"] == "no price -1"


def test_only_the_last_attempt_is_kept() -> None:
    def work(item: dict[str, Any], context: ItemContext) -> Any:
        if context.attempt == 1:
            price(1)
            raise ConnectionError("again")
        return "no step"

    run = ran(work, {})
    assert execution(run).steps is None
    [failed] = [past for past in execution(run).history() if past.status == "RETRYING"]
    assert failed.steps is not None
    assert not run.replay()


def test_a_result_that_json_cannot_hold_fails_the_item() -> None:
    run = ran(lambda item, context: str(opaque()), {})
    assert execution(run).error_type == "NotSerialisable"
    assert "the result of replay_opaque()" in str(execution(run).error_message)


# -- the same again


def test_the_same_code_comes_to_the_same_and_writes_nothing(url: str) -> None:
    shared = Client(name="shared")
    clients = [Client(name=f"c{number}") for number in range(6)]

    def work(item: dict[str, Any], context: ItemContext) -> Any:
        client = Client.hydrate(item["id"])
        value, (_text, number) = price(item["n"])
        assert (type(value), number) == (Decimal, item["n"])
        with client.edit():
            client.credit += number
            client.tags.append("billed")
        letter = Letter(text=client.name, client_id=client.id)
        Letter(text="re", answers=letter.id)
        common = Client.hydrate(shared.id)  # which all items write, one after the other
        common.credit += 1
        if number == 3:
            client.delete()
        if number == 4 and context.attempt == 1:
            raise ConnectionError("again")
        if number == 5:
            raise ValueError("bad")
        return {"letter": letter.id, "credit": common.credit}

    run = ran(work, *({"id": str(client.id), "n": number} for number, client in enumerate(clients)))
    assert Client.hydrate(shared.id).credit == 5
    before, calls = count(url), len(CALLED)
    report = run.replay()
    assert [list(item.lines()) for item in report] == []
    assert (report.same, report.different, report.diverged, bool(report)) == (6, 0, 0, False)
    assert str(report) == "6 items replayed: 6 same, 0 different"
    assert (count(url), len(CALLED)) == (before, calls)


def test_async_functions_and_steps_that_overlap_are_replayed_too() -> None:
    async def work(item: dict[str, Any], context: ItemContext) -> Any:
        found = await asyncio.gather(*(fetch(number) for number in range(4)))
        client = await Client.create_async(name="a")
        await client.update_async(credit=len(found))
        return [found, await asyncio.to_thread(lambda: Client.where().count() >= 0 or None)]

    async def without_query(item: dict[str, Any], context: ItemContext) -> Any:
        found = await asyncio.gather(*(fetch(number) for number in range(4)))
        client = await Client.create_async(name="a")
        await client.update_async(credit=len(found))
        return found

    run = ran(without_query, {}, {}, how=replayed_async)
    assert run.status == "COMPLETED"
    assert execution(run).result_payload == [{"fetched": number} for number in range(4)]
    calls = len(CALLED)
    assert [list(item.lines()) for item in run.replay()] == []
    assert len(CALLED) == calls
    with_work(work)
    assert run.replay().diverged == 2


def test_records_are_read_as_they_were() -> None:
    client = Client(name="then", credit=1)
    client.credit = 2
    Client(name="other")

    def work(item: dict[str, Any], context: ItemContext) -> Any:
        found = Client.hydrate(client.id)
        names = sorted(one.name for one in Client.where())
        found_too = [one.credit for one in Client.where(name="then").all()]
        past = [one.version for one in found.history()]
        return [found.name, names, found_too, past, Client.where().count(), Client.hydrate(client.id, version=0).credit]

    run = ran(work, {})
    assert execution(run).result_payload == ["then", ["other", "then"], [2], [1, 0], 2, 1]
    moment = datetime.now(UTC)
    client.name = "now"
    Client(name="third")
    assert not run.replay()
    assert not run.replay(moment)
    [item] = run.replay(datetime.now(UTC))
    assert fields(item)["result"][1][:2] == ["now", ["now", "other", "third"]]


def test_a_record_that_somebody_wrote_while_the_item_ran_is_found_as_the_item_found_it() -> None:
    client = Client(name="a")
    bob = [lambda: Client.hydrate(client.id).update(credit=10)]

    def work(item: dict[str, Any], context: ItemContext) -> int:
        if bob:
            thread = threading.Thread(target=bob.pop())
            thread.start()
            thread.join()
        found = Client.hydrate(client.id)
        found.credit += 1
        return found.credit

    run = ran(work, {})
    assert execution(run).result_payload == 11
    assert [list(item.lines()) for item in run.replay()] == []


def test_an_item_that_was_called_again_finds_what_it_found_the_last_time() -> None:
    written, read = Client(name="written by all"), Client(name="read by all")

    def work(item: dict[str, Any], context: ItemContext) -> int:
        Client.hydrate(written.id).credit = context.number  # so it is called again, after what the last one wrote
        found = Client.hydrate(read.id)
        if context.number % 2:
            found.credit = context.number
        return found.credit

    run = ran(work, *({} for _ in range(130)), how=replayed_in_order)
    assert [list(item.lines()) for item in run.replay()] == []


def test_an_item_sees_what_it_wrote_itself_by_id() -> None:
    client = Client(name="a")

    def work(item: dict[str, Any], context: ItemContext) -> Any:
        found = Client.hydrate(client.id)
        found.credit = 7
        with pytest.raises(ValueError, match="back"), Eventic.transaction():
            Letter(text="taken back")
            Desk.where().all()  # which writes what is pending first
            raise ValueError("take it back")
        Letter(text="stays")
        return [
            len(Desk.where().all()),
            found.version,
            [v.credit for v in found.history()],
            Client.hydrate(client.id).credit,
        ]

    run = ran(work, {})
    assert execution(run).result_payload == [0, 1, [7, 0], 7]
    assert [list(item.lines()) for item in run.replay()] == []


def test_of_a_snoozed_item_the_last_attempt_is_compared() -> None:
    client = Client(name="a")

    def work(item: dict[str, Any], context: ItemContext) -> Any:
        found = Client.hydrate(client.id)
        found.credit += 1
        Letter(text=str(found.credit))
        return found.credit if found.credit > 2 else Snooze(0.1)

    run = ran(work, {})
    assert execution(run).result_payload == 3
    assert [list(item.lines()) for item in run.replay()] == []


@pytest.mark.parametrize("how", [replayed, replayed_async])
def test_of_an_item_that_was_snoozed_for_no_time_the_last_attempt_is_compared(how: Any) -> None:
    client = Client(name="a")

    def work(item: dict[str, Any], context: ItemContext) -> Any:
        found = Client.hydrate(client.id)
        found.credit += 1
        letter = Letter(text=str(found.credit))
        return [found.credit, str(letter.id)] if found.credit > 2 else Snooze(0)

    async def work_async(item: dict[str, Any], context: ItemContext) -> Any:
        return await asyncio.to_thread(work, item, context)

    run = ran(work if how is replayed else work_async, {}, how=how)
    assert [letter.text for letter in Letter.where().order_by(Letter.fields.text)] == ["1", "2", "3"]
    report = run.replay(publish=True)
    assert [list(item.lines()) for item in report] == []
    assert sum(numbers(report.published)) == 0
    assert (Client.hydrate(client.id).credit, Letter.where().count()) == (3, 3)


def test_the_item_is_read_as_it_was_and_a_deleted_one_is_reported() -> None:
    from eventic_core.automation import Item

    run = ran(lambda item, context: item["n"], {"n": 1}, {"n": 2})
    one, two = Item.where().order_by(Item.fields.sequence_number).all()
    one.update(payload={"n": 10})
    two.delete()
    assert not run.replay()
    report = run.replay(datetime.now(UTC))
    first, second = report
    assert fields(first)["result"] == (1, 10)
    assert fields(second)["error_type"] == (None, "ReplayDiverged")
    assert "is deleted as of" in fields(second)["error"][1]
    assert report.diverged == 1
    assert run.replay(datetime.now(UTC) - timedelta(days=1)).diverged == 2


# -- what differs


def test_other_code_is_compared_item_by_item() -> None:
    client = Client(name="a")

    def first(item: dict[str, Any], context: ItemContext) -> Any:
        if item["n"] == 1:
            Client.hydrate(client.id).credit = 1
            Letter(text="one")
        return price(item["n"])[1][1]

    def second(item: dict[str, Any], context: ItemContext) -> Any:
        if item["n"] == 1:
            Client.hydrate(client.id).credit = 2
            Letter(text="two")
        if item["n"] == 2:
            return Skip("not wanted")
        if item["n"] == 3:
            raise ValueError("bad")
        return price(item["n"])[1][1]

    run = ran(first, *({"n": number} for number in range(1, 5)))
    with_work(second)
    report = run.replay()
    assert (report.same, report.different, report.diverged) == (1, 3, 0)
    one, two, three = report
    assert fields(one) == {}
    changed, created = one.records
    assert [(c.field, c.before, c.after) for c in changed.changes] == [("credit", 1, 2)]
    assert [(c.field, c.before, c.after) for c in created.changes] == [("text", "one", "two")]
    assert fields(two) == {
        "status": ("COMPLETED", "SKIPPED"),
        "result": (2, None),
        "error": (None, "not wanted"),
        "steps": (["replay_price"], []),
    }
    assert fields(three)["status"] == ("COMPLETED", "RETRYING")
    assert fields(three)["error_type"] == (None, "ValueError")
    assert list(report.lines())[-1] == "4 items replayed: 1 same, 3 different"
    [only] = run.replay(numbers=[2])
    assert only.numbers == (2, 2)


def test_differences_are_paged_and_absent_stays_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ran(lambda item, context: None, *({"n": number} for number in range(7)))
    with_work(lambda item, context: nothing(Letter(text=str(item["n"]))))
    monkeypatch.setattr(replays, "_PAGE_ITEMS", 2)
    report = run.replay()
    assert [item.numbers[0] for item in report] == [1, 2, 3, 4, 5, 6, 7]
    assert [item.numbers[0] for item in report] == [1, 2, 3, 4, 5, 6, 7]
    for item in report:
        [record] = item.records
        assert all(change.before is ABSENT for change in record.changes)
    assert isinstance(report.findings, replay_findings.Findings)


def test_work_is_dropped_and_counted(url: str) -> None:
    queue = Eventic.queue("replay_elsewhere")

    def work(item: dict[str, Any], context: ItemContext) -> None:
        queue.enqueue(later, 1)
        if item["writes"]:
            Letter(text="handled")

    run = ran(work, {"writes": True}, {"writes": False})
    deadline = time.monotonic() + 100
    while not SEEN:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = count(url)
    report = run.replay()
    assert (report.same, report.dropped_work) == (2, 3)
    assert count(url) == before


# -- what the past cannot answer


def test_a_step_that_was_not_called_ends_the_items_replay_even_if_the_error_is_caught() -> None:
    run = ran(lambda item, context: price(1)[1][1], {})
    calls = len(CALLED)

    def careless(item: dict[str, Any], context: ItemContext) -> Any:
        price(1)
        try:
            return price(1)
        except Exception:  # noqa: BLE001 - as people do
            return "whatever"

    for more in (careless, lambda item, context: outer(1)):
        with_work(more)
        report = run.replay()
        assert report.diverged == 1
        [item] = report
        assert fields(item)["error_type"] == (None, "ReplayDiverged")
        assert "has no recorded result" in fields(item)["error"][1]
    assert len(CALLED) == calls


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Client.where(name="a").all(),
        lambda: Client.where().count(),
        lambda: list(Client.where()),
        lambda: list(Client.changes()),
        lambda: Eventic.written_by("x"),
        lambda: Eventic.connection().execute(text("select 1")),
    ],
    ids=["where", "count", "stream", "feed", "written_by", "sql"],
)
def test_what_would_be_answered_wrongly_is_refused(ask: Callable[[], Any]) -> None:
    client = Client(name="a")

    def work(item: dict[str, Any], context: ItemContext) -> Any:
        Client.hydrate(client.id).credit = 5
        if item["ask"]:
            ask()

    run = ran(lambda item, context: None, {"ask": True}, {"ask": False})
    with_work(work)
    report = run.replay()
    assert report.diverged == 1
    one, _two = report
    assert fields(one)["error_type"] == (None, "ReplayDiverged")
    assert one.records == ()


# -- publishing


def test_publishing_makes_the_data_what_the_replay_comes_to() -> None:
    changed, restored, gone, kept = (Client(name=name) for name in ("changed", "restored", "gone", "kept"))

    def first(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(changed.id).update(credit=1, name="by the run", tags=["x"])
        Client.hydrate(restored.id).delete()
        Client.hydrate(kept.id).credit = 4
        letter = Letter(text="both")
        Letter(text="answer", answers=letter.id)
        Letter(text="only the run")
        Letter(text="equal")

    def second(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(changed.id).update(credit=2, tags=["x"])
        Client.hydrate(gone.id).delete()
        Client.hydrate(kept.id).credit = 4
        letter = Letter(text="both, better")
        Letter(text="answer, better", answers=letter.id)
        Letter(text="equal")
        Desk(place="new")

    run = ran(first, {})
    letters = {letter.text: letter for letter in Letter.where()}
    before = [change.version for change in changes(run, bookkeeping=True)]
    with_work(second)
    with Eventic.acting(actor="ada"):
        published = run.replay(publish=True).published
    assert published is not None
    assert numbers(published) == (1, 4, 2, 0, 0)
    now = Client.hydrate(changed.id)
    assert (now.credit, now.name, now.tags) == (2, "changed", ["x"])
    assert Client.hydrate(restored.id).name == "restored"
    assert [past.deleted for past in gone.history(limit=1)] == [True]
    assert Client.hydrate(kept.id).version == 1
    both = Letter.hydrate(letters["both"].id)
    answer = Letter.hydrate(letters["answer"].id)
    assert (both.text, answer.text, answer.answers) == ("both, better", "answer, better", both.id)
    assert Letter.where(text="only the run").count() == 0
    assert Letter.hydrate(letters["equal"].id).version == 0
    stamp = now.stamp
    assert (stamp.workflow_id, stamp.step_id) == (f"{run.id}:replay-1", 1)
    assert (stamp.actor, stamp.correlation_id, stamp.reason) == ("ada", "case-7", f"replay of run {run.id}")
    assert [change.version for change in changes(run, bookkeeping=True)] == before
    again = run.replay(publish=True).published
    assert again is not None
    assert numbers(again) == (0, 0, 0, 7, 0)


def test_a_later_replay_takes_the_place_of_one_that_was_published() -> None:
    client, other = Client(name="a"), Client(name="b")

    def first(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(client.id).credit = 1

    def second(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(client.id).name = "second"
        Client.hydrate(other.id).credit = 2
        Letter(text="second")

    run = ran(first, {})
    with_work(second)
    assert numbers(run.replay(publish=True).published) == (1, 2, 0, 0, 0)
    assert (Client.hydrate(client.id).name, Client.hydrate(client.id).credit) == ("second", 0)
    with_work(first)
    assert numbers(run.replay(publish=True).published) == (0, 2, 1, 0, 0)
    assert (Client.hydrate(client.id).name, Client.hydrate(client.id).credit) == ("a", 1)
    assert Client.hydrate(other.id).credit == 0
    assert Letter.where().count() == 0


def test_of_a_record_that_several_items_wrote_the_last_one_decides() -> None:
    client = Client(name="a")

    def first(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(client.id).update(**item["values"])

    def second(item: dict[str, Any], context: ItemContext) -> None:
        if context.number != item.get("not"):
            Client.hydrate(client.id).update(**{**item["values"], **item.get("instead", {})})

    rows = [
        {"values": {"credit": 1, "name": "one"}, "instead": {"credit": 10, "tags": ["first"]}},
        {"values": {"credit": 2}},
        {"values": {"name": "three"}, "not": 3},
    ]
    run = ran(first, *rows, how=replayed_in_order)
    now = Client.hydrate(client.id)
    assert (now.credit, now.name) == (2, "three")
    with_work(second)
    only = run.replay(publish=True, numbers=[1]).published
    now = Client.hydrate(client.id)
    assert numbers(only) == (0, 1, 0, 0, 0)
    assert (now.credit, now.name, now.tags) == (2, "three", ["first"])
    assert numbers(run.replay(publish=True).published) == (0, 1, 0, 0, 0)
    now = Client.hydrate(client.id)
    assert (now.credit, now.name, now.tags) == (2, "one", ["first"])


def test_what_a_diverging_item_did_to_a_shared_record_stays() -> None:
    client = Client(name="a")
    run = ran(
        lambda item, context: Client.hydrate(client.id).update(credit=item["n"]),
        {"n": 1},
        {"n": 2},
        how=replayed_in_order,
    )

    def second(item: dict[str, Any], context: ItemContext) -> None:
        if item["n"] == 2:
            price(1)
        Client.hydrate(client.id).update(credit=10, tags=["second"])

    with_work(second)
    report = run.replay(publish=True)
    assert (report.diverged, numbers(report.published)) == (1, (0, 1, 0, 0, 0))
    now = Client.hydrate(client.id)
    assert (now.credit, now.tags) == (2, ["second"])


def test_what_others_wrote_since_is_a_conflict_unless_forced() -> None:
    client, fresh = Client(name="a"), Client(name="b")

    def first(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(client.id).credit = 1
        Letter(text="one")

    def second(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(client.id).credit = 2
        Client.hydrate(fresh.id).credit = 2

    run = ran(first, {})
    with Eventic.acting(actor="bob"):
        Client.hydrate(client.id).name = "by bob"
        Client.hydrate(fresh.id).name = "by bob"
    with_work(second)
    published = run.replay(publish=True).published
    assert published is not None
    assert numbers(published) == (0, 0, 1, 0, 2)
    assert {conflict.record_id for conflict in published.conflicts} == {client.id, fresh.id}
    assert [touch.actor for conflict in published.conflicts for touch in conflict.touches] == ["bob", "bob"]
    assert (Client.hydrate(client.id).credit, Client.hydrate(fresh.id).credit) == (1, 0)
    forced = run.replay(publish=True, force=True, reason="sure").published
    assert forced is not None
    assert (numbers(forced), forced.forced) == ((0, 2, 0, 1, 0), 2)
    now = Client.hydrate(client.id)
    assert (now.credit, now.name, now.stamp.reason) == (2, "by bob", "sure")


def test_an_undo_after_publishing_lists_what_was_published_as_conflicts() -> None:
    client = Client(name="a")
    run = ran(lambda item, context: setattr(Client.hydrate(client.id), "credit", 1), {})
    with_work(lambda item, context: setattr(Client.hydrate(client.id), "credit", 2))
    run.replay(publish=True)
    [conflict] = run.undo().conflicts
    assert [touch.workflow_id for touch in conflict.touches] == [f"{run.id}:replay-1"]
    assert run.undo(force=True).restored == 1
    assert Client.hydrate(client.id).credit == 0
    [conflict] = run.replay(publish=True).published.conflicts  # type: ignore[union-attr]
    assert [touch.workflow_id for touch in conflict.touches] == [f"{run.id}:undo-1"]


def test_a_published_replay_is_read_and_undone_by_its_id() -> None:
    client = Client(name="a")
    run = ran(lambda item, context: setattr(Client.hydrate(client.id), "credit", 1), {})

    def again(item: dict[str, Any], context: ItemContext) -> None:
        Client.hydrate(client.id).credit = 2
        Letter(text="new")

    with_work(again)
    published = run.replay(publish=True).published
    assert published is not None
    found = [(change.class_type, change.kind, change.attempt) for change in changes(published.workflow_id)]
    assert found == [("ReplayClient", "update", 1), ("ReplayLetter", "create", 1)]
    with pytest.raises(Invalid, match="has no attempt 2"):
        changes(published.workflow_id, attempt=2)
    dry = undo(published.workflow_id, dry_run=True)
    undone = undo(published.workflow_id)
    assert undone.workflow_id == dry.workflow_id == f"{run.id}:replay-1:undo-1"
    assert [(report.restored, report.tombstoned) for report in (dry, undone)] == [(1, 1), (1, 1)]
    assert (Client.hydrate(client.id).credit, Letter.where().count()) == (1, 0)
    assert undo(published.workflow_id).unchanged == 2
    assert undo(undone.workflow_id).restored == 2
    assert (Client.hydrate(client.id).credit, Letter.where().count()) == (2, 1)
    assert [change.kind for change in changes(undone.workflow_id)] == ["update", "delete"]
    with pytest.raises(Invalid, match="no items to replay"):
        replays.replay(published.workflow_id)


@pytest.mark.parametrize("name", ["replay-0", "replay-1:replay-1", "undo-1:replay-1", "replay-", "replay-1:"])
def test_an_id_that_no_replay_has_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="is no id of a run"):
        changes(f"{uuid4()}:{name}")


def test_items_that_diverge_are_left_alone_and_those_that_fail_have_done_nothing() -> None:
    run = ran(lambda item, context: nothing(Letter(text=item["text"])), {"text": "a"}, {"text": "b"}, {"text": "c"})

    def second(item: dict[str, Any], context: ItemContext) -> None:
        if item["text"] == "a":
            price(1)
        if item["text"] == "b":
            raise ValueError("b is bad")
        Letter(text=item["text"])

    with_work(second)
    report = run.replay(publish=True)
    assert [(item.numbers[0], len(item.records)) for item in report] == [(1, 0), (2, 1)]
    assert numbers(report.published) == (0, 0, 1, 0, 0)
    assert sorted(letter.text for letter in Letter.where()) == ["a", "c"]
    assert execution(run, 2).status == "COMPLETED"


def test_unique_keys_are_exchanged() -> None:
    one, two = Desk(place="1"), Desk(place="2")
    run = ran(lambda item, context: None, {})

    def swap(item: dict[str, Any], context: ItemContext) -> None:
        first, second = Desk.hydrate(one.id), Desk.hydrate(two.id)
        with first.edit(), second.edit():
            first.place, second.place = "aside", "1"
        first.place = "2"

    with_work(swap)
    assert numbers(run.replay(publish=True).published) == (0, 2, 0, 0, 0)
    assert (Desk.hydrate(one.id).place, Desk.hydrate(two.id).place) == ("2", "1")
    with_work(lambda item, context: nothing(Desk(place="2")))
    published = run.replay(publish=True).published
    assert published is not None
    assert numbers(published) == (0, 2, 0, 0, 1)  # that the key was taken then shows only when it is written
    assert "unique key place" in str(published.conflicts[0].problem)


def test_an_id_that_was_taken_then_fails_the_item() -> None:
    client = Client(name="a")
    made = uuid4()
    run = ran(lambda item, context: nothing(Client(id=made, name="made")), {})
    assert not run.replay()
    with_work(lambda item, context: nothing(Client(id=client.id, name="again")))
    [item] = run.replay()
    assert fields(item)["error_type"] == (None, "RecordExists")


def test_a_replay_as_of_a_moment_is_published_on_the_data_as_it_was_then() -> None:
    client = Client(name="a")

    def work(item: dict[str, Any], context: ItemContext) -> None:
        found = Client.hydrate(client.id)
        found.credit = len(found.name)

    before = datetime.now(UTC)
    client.name = "longer"
    run = ran(work, {})
    assert Client.hydrate(client.id).credit == 6
    assert run.replay(before).diverged == 1  # the item was not loaded yet
    run = ran(work, {})
    moment = datetime.now(UTC)
    Client.hydrate(client.id).name = "longest yet"
    run.replay(moment)
    published = run.replay(datetime.now(UTC), publish=True, force=True).published
    assert published is not None
    assert Client.hydrate(client.id).credit == 11


def test_a_publishing_that_is_killed_goes_on_when_it_is_called_again(url: str) -> None:
    run = ran(lambda item, context: None, *({"number": number} for number in range(MANY)), how=replayed_slowly)
    replay_id, killed = f"{run.id}:replay-1", 0
    Eventic.shutdown()
    with psycopg.connect(url, autocommit=True) as connection:
        while killed < 2:
            process = subprocess.Popen([sys.executable, __file__, url, str(run.id)])
            before = written = _written(connection, replay_id)
            while written == before:
                assert process.poll() is None
                time.sleep(0.005)
                written = _written(connection, replay_id)
            process.kill()
            assert process.wait() == -signal.SIGKILL
            killed += 1
        assert 0 < _written(connection, replay_id) < MANY + MANY // 10
        subprocess.run([sys.executable, __file__, url, str(run.id)], check=True)
        assert _written(connection, replay_id) == MANY + MANY // 10
    Eventic.init(name="tests", database_url=url)
    found = Slow.where().all()
    assert sorted(slow.number for slow in found if slow.by == "replay") == list(range(MANY))
    assert sorted(-slow.number for slow in found if slow.by == "new") == list(range(0, MANY, 10))
    assert {slow.version for slow in found if slow.by == "replay"} == {1}


def _written(connection: psycopg.Connection[Any], workflow_id: str) -> int:
    row = connection.execute("select count(*) from eventic.records where workflow_id = %s", (workflow_id,)).fetchone()
    assert row is not None
    return int(row[0])


# -- what is refused


def test_bad_input_is_refused_before_anything_is_done(url: str) -> None:
    run = ran(lambda item, context: None, {})
    before, calls = count(url), len(WORK)
    with_work(lambda item, context: pytest.fail("it was called"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"as_of": datetime.now()}, "time zone"),  # noqa: DTZ005 - the subject
        ({"as_of": "2026-01-01"}, "time zone"),
        ({"as_of": datetime.now(UTC) + timedelta(hours=1)}, "still to come"),
        ({"numbers": [1, 2, 3]}, "no item 2, 3 that has begun"),
        ({"force": True}, "publish=True"),
        ({"reason": "why"}, "publish=True"),
    ]
    for options, problem in wrong:
        with pytest.raises(Invalid, match=problem):
            run.replay(**options)
    with pytest.raises(Invalid, match="is an undo"):
        replays.replay(run.undo().workflow_id)
    with pytest.raises(RecordNotFound):
        replays.replay(uuid4())
    with Eventic.unit_of_work(), pytest.raises(ScopeError):
        run.replay()
    assert (count(url), len(WORK)) == (before, calls + 1)


def test_an_automation_that_is_not_declared_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ran(lambda item, context: None, {})
    monkeypatch.delitem(declared._declared, "replayed")
    with pytest.raises(NotRegistered, match="'replayed'"):
        run.replay()


def test_a_run_that_goes_on_is_replayed_but_not_published() -> None:
    run = ran(lambda item, context: 1, {})
    again = Run(automation_id=run.automation_id)
    again.start()
    assert again.replay().items == 0
    with pytest.raises(InvalidStateError, match="publishing a replay"):
        again.replay(publish=True)


def test_the_async_twin_replays_and_the_blocking_one_is_refused_in_a_loop() -> None:
    run = ran(lambda item, context: item["n"], {"n": 1})
    with_work(lambda item, context: 2)

    async def ask() -> Any:
        with pytest.raises(BlockingInLoop, match="replay_async"):
            run.replay()
        return await run.replay_async()

    report = asyncio.run(ask())
    [item] = report
    assert fields(item) == {"result": (1, 2)}


def main(url: str, run_id: str) -> None:
    """Publish a replay, to be killed."""
    Eventic.init(name="replay", database_url=url)
    replays.replay(UUID(run_id), publish=True)
    Eventic.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
