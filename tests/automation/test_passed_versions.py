"""Versions that an item passes through in one write, stored by what differs: each says how things were at its time."""

from __future__ import annotations

import itertools
from contextvars import ContextVar
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg
import pytest
from runs import ended, executions, moves

from eventic_core import Eventic, Record
from eventic_core.automation import ExecutionStatus, ItemContext, ItemExecution, Retry, automation
from eventic_core.records.states import StateMachine

pytestmark = pytest.mark.usefixtures("workers")
S = ExecutionStatus
AGAIN = Retry(max_attempts=3, delay_seconds=0)
CASE: ContextVar[str | None] = ContextVar("case of the item", default=None)
FOUND: list[str | None] = []


class Stage(StrEnum):
    NEW = "NEW"
    PACKED = "PACKED"
    SENT = "SENT"


STAGES = StateMachine("stage", Stage.NEW, {Stage.NEW: {Stage.PACKED}, Stage.PACKED: {Stage.SENT}, Stage.SENT: set()})


class Parcel(Record, class_type="PassedParcel", states=STAGES):
    number: int
    stage: Stage = Stage.NEW


def plain(version: ItemExecution) -> dict[str, Any]:
    """Give what a version says of its attempt."""
    names = ("status", "attempt_count", "error_message", "error_type", "result_payload", "steps")
    return {name: getattr(version, name) for name in names}


def bookkeeping(url: str, record_id: UUID) -> list[tuple[Any, ...]]:
    """Read the bookkeeping of a record's versions, the first one first."""
    sql = """
    select version, reason, calls, recorded_at, superseded_at, version_id, position, data
    from eventic.records where id = %s order by version
    """
    with psycopg.connect(url) as connection:
        return connection.execute(sql, (record_id,)).fetchall()


# -- what is stored


@Eventic.step()
def passed_price(number: int) -> int:
    if number == 3:
        raise LookupError("no price yet")
    return number * 10


@automation("passed: prices", retry=AGAIN)
def prices(item: dict[str, int], context: ItemContext) -> int:
    """Fail once where the number is even, of which the versions say so; the third item fails in a step."""
    if item["number"] % 2 == 0 and context.attempt == 1:
        raise ConnectionError(f"{item['number']} is busy")
    if item["number"] == 3 and context.attempt > 1:
        return 0
    return passed_price(item["number"])


def test_each_version_says_how_things_were_when_it_was_made() -> None:
    first, second, third = (
        [plain(version) for version in reversed(execution.history())] for execution in executions(ended(prices, 3))
    )
    new: dict[str, Any] = {"error_message": None, "error_type": None, "result_payload": None, "steps": None}
    busy = {"error_message": "2 is busy", "error_type": "ConnectionError"}
    step = {"name": "passed_price", "result": 10}
    assert first == [
        {**new, "status": S.PENDING, "attempt_count": 0},
        {**new, "status": S.PROCESSING, "attempt_count": 1},
        {**new, "status": S.COMPLETED, "attempt_count": 1, "result_payload": 10, "steps": [step]},
    ]
    assert second == [
        {**new, "status": S.PENDING, "attempt_count": 0},
        {**new, "status": S.PROCESSING, "attempt_count": 1},
        {**new, "status": S.RETRYING, "attempt_count": 1, **busy},
        {**new, "status": S.PROCESSING, "attempt_count": 2, **busy},
        {**new, "status": S.COMPLETED, "attempt_count": 2, **busy, "result_payload": 20}
        | {"steps": [{**step, "result": 20}]},
    ]
    assert [version["status"] for version in third] == ["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETED"]
    assert [bool(version["steps"]) for version in third] == [False, False, True, False, False]


def test_each_version_has_its_own_id_place_and_time(workers: str) -> None:
    run = ended(prices, 40)
    ids: list[UUID] = []
    for execution in executions(run):
        rows = bookkeeping(workers, execution.id)
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert [row[1:3] for row in rows[:3]] == [
            ("start", None),
            ("start", "start"),
            ("complete", "complete") if len(rows) == 3 else ("fail", "fail"),
        ]
        for before, after in itertools.pairwise(rows):
            assert before[4] == after[3] == before[3] + timedelta(microseconds=1)
            assert before[6] < after[6]
        assert rows[-1][4] is None
        ids += [row[5] for row in rows]
    assert len(set(ids)) == len(ids)
    assert {version_id.version for version_id in ids} == {7}


@automation("passed: parcels")
def parcels(item: dict[str, int]) -> None:
    """Make two parcels and move them, so that they have several versions too."""
    one, other = Parcel(number=item["number"]), Parcel(number=-item["number"])
    with Eventic.unit_of_work():
        one.stage = Stage.PACKED
        other.stage = Stage.PACKED
        one.stage = Stage.SENT


def test_a_slice_may_hold_several_versions_of_records_that_items_wrote(workers: str) -> None:
    run = ended(parcels, 3)
    assert run.status == S.COMPLETED
    assert [moves(execution) for execution in executions(run)] == [["PENDING", "PROCESSING", "COMPLETED"]] * 3
    found = {parcel.number: parcel for parcel in Parcel.where().all() if parcel.stamp.workflow_id == str(run.id)}
    assert {number: parcel.stage for number, parcel in found.items()} == {
        **dict.fromkeys((1, 2, 3), Stage.SENT),
        **dict.fromkeys((-1, -2, -3), Stage.PACKED),
    }
    for parcel in found.values():
        rows = bookkeeping(workers, parcel.id)
        assert [row[7]["stage"] for row in rows] == ["NEW", "PACKED", "SENT"][: 3 if parcel.number > 0 else 2]
        assert [row[6] for row in rows] == sorted(row[6] for row in rows)


# -- what an item leaves behind


@automation("passed: cases", concurrency=1)
def passed_cases(item: dict[str, int]) -> None:
    FOUND.append(CASE.get())
    CASE.set(f"item {item['number']}")


def test_a_context_variable_that_one_item_sets_is_not_set_for_the_next() -> None:
    FOUND.clear()
    ended(passed_cases, 3)
    assert FOUND == [None] * 3
