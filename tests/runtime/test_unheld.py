"""Work that is claimed while the worker does not know of it: it is done all the same, and nothing is done twice."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dbos._sys_db import SystemDatabase

from eventic_core import Eventic
from eventic_core.runtime import adapter, presence
from eventic_core.runtime.process import process

if TYPE_CHECKING:
    from eventic_core.store.work import Claim, QueueRow

QUEUES = [Eventic.queue(f"unheld {number}") for number in range(5)]

ONE = Eventic.queue("unheld one", concurrency=1)
CALLED: list[int] = []


@Eventic.step(name="unheld.double")
def double(number: int) -> int:
    return number * 2


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks every tenth of a second."""
    monkeypatch.setattr(presence, "TAKE_OVER_SECONDS", 0.1)
    monkeypatch.setattr(presence, "LISTEN_SECONDS", 0.1)


@pytest.mark.usefixtures("eventic")
def test_work_whose_claim_was_committed_unheard_is_done_though_its_queue_has_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Eventic.launch()
    work = process().store.work
    claim = work.claim
    lost: dict[str, list[Claim]] = {}

    def unheard(queue: QueueRow, *args: Any, **kwargs: Any) -> list[Claim]:
        found = claim(queue, *args, **kwargs)
        if found and queue.name not in lost:
            lost[queue.name] = found
            message = "the reply is lost"
            raise psycopg.OperationalError(message)
        return found

    monkeypatch.setattr(work, "claim", unheard)
    handles = [queue.enqueue(double, number) for number, queue in enumerate(QUEUES)]
    assert [handle.result(timeout_seconds=100) for handle in handles] == [number * 2 for number in range(5)]
    assert {claimed.run_id for found in lost.values() for claimed in found} == {handle.id for handle in handles}


@pytest.mark.usefixtures("eventic", "often")
def test_work_that_got_lost_on_its_way_to_the_executor_is_given_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim, lost = adapter.Claims.claim, []

    def forgetful(self: adapter.Claims, queue: QueueRow, count: int) -> list[adapter.Claimed]:
        found = claim(self, queue, count)
        if found and not lost:
            lost.extend(found)
            return []
        return found

    monkeypatch.setattr(adapter.Claims, "claim", forgetful)
    Eventic.launch()
    handle = QUEUES[0].enqueue(double, 21)
    assert handle.result(timeout_seconds=100) == 42
    assert [claimed.run_id for claimed in lost] == [handle.id]
    assert [record.runs for record in caplog.records if getattr(record, "action", None) == "unheld"] == [[handle.id]]


@Eventic.step(name="unheld.slow")
def slow(number: int) -> None:
    CALLED.append(number)
    time.sleep(0.5)


@Eventic.workflow(name="unheld.slowly")
async def slowly(number: int) -> None:
    CALLED.append(number)
    await asyncio.sleep(0.5)


@pytest.mark.usefixtures("eventic", "often")
def test_what_is_being_claimed_runs_waits_or_is_to_be_stored_is_not_given_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    CALLED.clear()
    Eventic.launch()
    work = process().store.work
    claim, complete_many = work.claim, work.complete_many

    def heard_late(*args: Any, **kwargs: Any) -> list[Claim]:
        found = claim(*args, **kwargs)
        time.sleep(0.5 if found else 0)
        return found

    def stored_late(outcomes: Any) -> None:
        time.sleep(0.5)
        complete_many(outcomes)

    monkeypatch.setattr(work, "claim", heard_late)
    monkeypatch.setattr(work, "complete_many", stored_late)
    outcome = SystemDatabase.update_workflow_outcome

    def dbos_late(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.5)
        return outcome(*args, **kwargs)

    monkeypatch.setattr(SystemDatabase, "update_workflow_outcome", dbos_late)
    handles: list[Any] = [ONE.enqueue(slow, number) for number in range(3)]
    handles += [ONE.enqueue(slowly, 3), QUEUES[0].enqueue(slowly, 4)]
    for handle in handles:
        handle.result(timeout_seconds=100)
    slow(5)
    assert sorted(CALLED) == [0, 1, 2, 3, 4, 5]
    assert [record for record in caplog.records if getattr(record, "action", None) == "unheld"] == []
