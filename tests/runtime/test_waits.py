"""Work that waits for runs to end: woken by the end, whichever comes first, and never asleep past one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core.records import current_store
from eventic_core.records.port import OwnershipLost, Work
from eventic_core.runtime import adapter
from eventic_core.store.handlers import call_payload
from eventic_core.store.waits import WaitTable
from eventic_core.store.work import QueueRow

if TYPE_CHECKING:
    from eventic_core.store import PostgresStore

QUEUE = QueueRow("waits", 8)


@pytest.fixture
def store(eventic: str) -> PostgresStore:
    adapter.migrate(eventic)
    store: Any = current_store()
    store.work.ensure_queue(QUEUE)
    return store  # type: ignore[no-any-return]


def claimed(store: PostgresStore) -> str:
    """Enqueue a piece of work and claim it as `me`."""
    work_id = uuid4().hex
    store.enqueue([Work(work_id, "eventic.jobs", QUEUE.name, call_payload({}))])
    assert [claim.run_id for claim in store.work.claim(QUEUE, 1, owner="me", executor="here")] == [work_id]
    return work_id


def waiting(store: PostgresStore, *runs: UUID) -> str:
    work_id = claimed(store)
    with store.transaction() as tx:
        WaitTable(store).add(work_id, runs, tx)
    return work_id


def ended(store: PostgresStore, run: UUID) -> None:
    with store.transaction() as tx:
        WaitTable(store).ended(run, tx)


def status(url: str, work_id: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("select status from dbos.workflow_status where workflow_uuid = %s", (work_id,))
        return str(row.fetchall()[0][0])


def test_work_sleeps_until_the_run_ends(store: PostgresStore, eventic: str) -> None:
    run = uuid4()
    work = waiting(store, run)
    assert WaitTable(store).park(work, "me", [run])
    assert status(eventic, work) == "DELAYED"
    ended(store, uuid4())
    assert status(eventic, work) == "DELAYED"
    ended(store, run)
    assert status(eventic, work) == "ENQUEUED"


def test_work_does_not_wait_for_a_run_that_has_ended(store: PostgresStore, eventic: str) -> None:
    run = uuid4()
    work = waiting(store, run)
    ended(store, run)
    assert not WaitTable(store).park(work, "me", [run])
    assert status(eventic, work) == "PENDING"


def test_work_that_waits_for_several_goes_on_when_one_has_ended(store: PostgresStore, eventic: str) -> None:
    runs = [uuid4(), uuid4()]
    work = waiting(store, *runs)
    assert WaitTable(store).park(work, "me", runs)
    ended(store, runs[1])
    assert status(eventic, work) == "ENQUEUED"


def test_a_run_wakes_all_that_wait_for_it(store: PostgresStore, eventic: str) -> None:
    run = uuid4()
    works = [waiting(store, run) for _ in range(3)]
    assert all(WaitTable(store).park(work, "me", [run]) for work in works)
    ended(store, run)
    assert {status(eventic, work) for work in works} == {"ENQUEUED"}


def test_work_that_is_about_to_wait_while_the_run_is_about_to_end_does_not_sleep(
    store: PostgresStore, eventic: str
) -> None:
    run = uuid4()
    work = waiting(store, run)
    parked: list[bool] = []
    with store.transaction() as tx:
        WaitTable(store).ended(run, tx)
        thread = threading.Thread(target=lambda: parked.append(WaitTable(store).park(work, "me", [run])))
        thread.start()
        thread.join(0.5)
        assert parked == [], "it must wait for what becomes of the transaction"
    thread.join(100)
    assert (parked, status(eventic, work)) == ([False], "PENDING")


def test_a_run_that_is_about_to_end_while_work_is_about_to_wait_wakes_it(store: PostgresStore, eventic: str) -> None:
    run = uuid4()
    work = waiting(store, run)
    with store.transaction() as tx:
        tx.fetch("select run_id from eventic.waits where run_id = %s for update", (run,))  # as park() begins
        thread = threading.Thread(target=ended, args=(store, run))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        tx.fetch("update dbos.workflow_status set status = 'DELAYED' where workflow_uuid = %s returning 1", (work,))
    thread.join(100)
    assert status(eventic, work) == "ENQUEUED"


def test_what_is_somebody_elses_is_not_parked(store: PostgresStore, eventic: str) -> None:
    run = uuid4()
    work = waiting(store, run)
    with pytest.raises(OwnershipLost):
        WaitTable(store).park(work, "another", [run])
    assert status(eventic, work) == "PENDING"
