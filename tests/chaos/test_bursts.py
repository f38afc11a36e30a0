"""Much at once: enqueues of one transaction, everything due after an outage, and all workers taking over together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from chaos_load import first, follow, queue
from conftest import execute, rows
from faults import Workers, check, connected, insert_run, until
from oracles import ALWAYS, WHEN_QUIET

from eventic_core import Eventic
from eventic_core.runtime import presence, runs
from eventic_core.runtime.process import process
from eventic_core.runtime.takeover import TakeOver
from eventic_core.store.slots import SPACE, Slot
from eventic_core.store.work import CHANNEL

BURST, HEIRS, LEFT = 2500, 4, 200


@pytest.fixture
def workers(migrated_url: str, tmp_path: Path) -> Iterator[Workers]:
    with connected(migrated_url, tmp_path) as found:
        yield found


def test_a_burst_of_enqueues_is_told_once(workers: Workers) -> None:
    with psycopg.connect(workers.url, autocommit=True) as listener:
        listener.execute(f"listen {CHANNEL}")
        queue.enqueue_many(follow, ((str(number),) for number in range(BURST)))
        told = list(listener.notifies(timeout=0.5))
    assert [notice.payload for notice in told] == ["chaos"]


def test_what_is_due_at_once_is_done_a_few_at_a_time(workers: Workers) -> None:
    ids = [queue.enqueue(first, f"due-{number}", run_id=f"due-{number}", delay_seconds=1).id for number in range(60)]
    workers.start()
    workers.start()
    until(lambda: all(runs.get_run(run).status == "SUCCESS" for run in ids), workers)
    check(workers.url, ALWAYS, WHEN_QUIET)


def test_of_many_who_take_over_at_once_each_run_is_one_ones(workers: Workers) -> None:
    process().ensure_queue(queue.row(keyed=False))
    for number in range(LEFT):
        insert_run(workers.url, f"left-{number}", "eventic.run", payload="{}")
    execute(
        workers.url,
        "update dbos.workflow_status set status = 'PENDING', owner_xid = workflow_uuid, executor_id = 'worker-77'",
    )
    slots = [Slot(process().store.database) for _ in range(HEIRS)]
    gate = threading.Barrier(HEIRS)

    def look(slot: Slot) -> list[str]:
        slot.take()
        heir, own = TakeOver(process().store, slot), uuid4()
        gate.wait()
        return [run for _ in range(4) for run in heir.look(own, judges_beats=True)]

    with ThreadPoolExecutor(HEIRS) as pool:
        taken = [run for found in pool.map(look, slots) for run in found]
    for slot in slots:
        slot.give_up()
    assert sorted(taken) == sorted(f"left-{number}" for number in range(LEFT))
    check(workers.url, ALWAYS)


def claimed(url: str, run: str, slot: str) -> None:
    """Write a run that a worker with this slot has claimed."""
    insert_run(url, run, "eventic.run", payload="{}")
    sql = (
        "update dbos.workflow_status set status = 'PENDING', owner_xid = %s, executor_id = %s where workflow_uuid = %s"
    )
    with psycopg.connect(url) as connection:
        connection.execute(sql, (f"claim of {run}", slot, run))


def test_what_a_dead_worker_left_under_a_slot_that_is_taken_again_is_taken_over_once_nobody_holds_it(
    workers: Workers,
) -> None:
    process().ensure_queue(queue.row(keyed=False))
    store, slot = process().store, Slot(process().store.database)
    name = slot.take()
    claimed(workers.url, "earlier", name)
    heir = TakeOver(store, slot)
    heir.inherit()
    claimed(workers.url, "own", name)
    with psycopg.connect(workers.url) as dead:
        dead.execute("select 1 from dbos.workflow_status where workflow_uuid = 'earlier' for update")
        assert heir.look(uuid4(), judges_beats=False) == []
    assert heir.look(uuid4(), judges_beats=False) == ["earlier"]
    assert heir.look(uuid4(), judges_beats=False) == []
    slot.give_up()
    assert [runs.get_run(run).status for run in ("earlier", "own")] == ["ENQUEUED", "PENDING"]


def test_a_worker_that_goes_on_under_the_slot_of_a_dead_one_takes_over_what_that_left(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "TAKE_OVER_SECONDS", 0.3)
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=workers.url)
    Eventic.launch(queues=[])
    claimed(workers.url, "left", "worker-1")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(workers.url, autocommit=True) as other:
        taking = pool.submit(other.execute, "select pg_advisory_lock(%s, 0)", (SPACE,))
        until(lambda: rows(workers.url, "select 1 from pg_locks where locktype = 'advisory' and not granted"), workers)
        execute(
            workers.url,
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted and objid = 0 "
            "and database = (select oid from pg_database where datname = current_database())",
        )
        taking.result()
        worker = process().worker
        assert worker is not None
        until(lambda: worker.slot == "worker-1", workers)
        until(lambda: runs.get_run("left").status == "ENQUEUED", workers)
