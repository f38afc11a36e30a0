"""Replies that are lost between Postgres and a worker: what they said counts all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from eventic_core import Eventic
from eventic_core.runtime.process import process

if TYPE_CHECKING:
    from eventic_core.store.work import Claim, QueueRow

QUEUES = [Eventic.queue(f"lost replies {number}") for number in range(5)]


@Eventic.step(name="lost_replies.double")
def double(number: int) -> int:
    return number * 2


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
