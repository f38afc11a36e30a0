"""Workers whose clocks are minutes ahead or behind: what is due is decided by the server's clock alone.

The server's own clock is not stepped: the whole system has no other one to be compared with. What a step leaves behind
is: beats that seem minutes old.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from chaos_load import CHAOS_TICKS, ChaosMade, follow, queue
from conftest import execute
from faults import Workers, connected, insert_run, until

from eventic_core.runtime.process import process
from eventic_core.runtime.takeover import TakeOver
from eventic_core.store.slots import Slot
from eventic_core.store.workers import Load, Process

FIVE_MINUTES = 300.0


@pytest.fixture
def workers(migrated_url: str, tmp_path: Path) -> Iterator[Workers]:
    with connected(migrated_url, tmp_path) as found:
        yield found


def test_delayed_work_and_schedules_go_by_the_servers_clock(workers: Workers) -> None:
    for clock in (FIVE_MINUTES, -FIVE_MINUTES):
        workers.start(clock=clock)
    workers.ready()
    far = queue.enqueue(follow, "far", delay_seconds=FIVE_MINUTES / 2)
    near = queue.enqueue(follow, "near", delay_seconds=1.0)
    began = datetime.now(UTC)
    schedule = CHAOS_TICKS.schedule("every second", overlap="allow")
    until(lambda: len(schedule.runs(limit=None)) >= 4, workers)
    schedule.pause()
    ran = schedule.runs(limit=None)
    due = sorted(run.due_at for run in ran if run.due_at is not None)
    assert due == [due[0] + timedelta(seconds=number) for number in range(len(due))]
    assert began <= due[0]
    assert due[-1] <= datetime.now(UTC)
    for run in ran:
        assert str(run.wait(timeout_seconds=100).status) == "COMPLETED"
    assert near.result(timeout_seconds=100) is None
    assert far.status() == "DELAYED"
    assert ChaosMade.where().count() == len(ran) + 1
    with psycopg.connect(workers.url) as connection:
        sleeps = connection.execute("select max(recovery_attempts) from dbos.workflow_status").fetchone()
    assert sleeps is not None
    assert sleeps[0] <= 2


def test_a_worker_that_goes_on_beating_is_not_taken_for_one_that_hangs_when_the_clock_jumps(workers: Workers) -> None:
    store = process().store
    process().ensure_queue(queue.row(keyed=False))
    live, judge, worker = Slot(store.database), Slot(store.database), uuid4()
    live.take()
    store.workers.begin(live, worker, Process("tests", "1", "1", "here", 1))
    insert_run(workers.url, "its", "eventic.run", payload="{}")
    execute(
        workers.url,
        "update dbos.workflow_status set status = 'PENDING', owner_xid = 'a claim', executor_id = "
        f"'{live.name}' where workflow_uuid = 'its'",
    )
    judge.take()
    heir, own = TakeOver(store, judge), uuid4()

    def look() -> list[str]:
        return heir.look(own, judges_beats=True)

    jump = "update eventic.workers set beat_at = beat_at - interval '5 minutes'"
    for _ in range(3):
        execute(workers.url, jump)
        assert look() == []
        assert store.workers.beat(live, worker, Load(["chaos"], 1, 0, is_draining=False))
    execute(workers.url, jump)
    assert [look(), look()] == [[], ["its"]]
    judge.give_up()
    live.give_up()
