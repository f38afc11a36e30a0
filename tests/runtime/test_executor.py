"""Claimed work where something goes wrong in the worker itself: nothing is held twice, nothing is stranded."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventic_core.records import current_store
from eventic_core.records.port import Work
from eventic_core.runtime import adapter
from eventic_core.runtime.executor import Executor
from eventic_core.runtime.outcomes import Outcomes
from eventic_core.store import PostgresStore
from eventic_core.store.handlers import call_payload
from eventic_core.store.work import Outcome, QueueRow

QUEUE = QueueRow("executor", 8)


@pytest.fixture
def store(eventic: str) -> PostgresStore:
    adapter.migrate(eventic)
    store: Any = current_store()
    store.work.ensure_queue(QUEUE)
    return store  # type: ignore[no-any-return]


def claimed(store: PostgresStore, count: int) -> list[adapter.Claimed]:
    ids = [uuid4().hex for _ in range(count)]
    payload = call_payload({"function": "nobody's"})
    store.enqueue([Work(id=run_id, name="eventic.run", queue=QUEUE.name, payload=payload) for run_id in ids])
    found = store.work.claim(QUEUE, count, owner="me", executor="here")
    return [adapter.Claimed(run, name, "me", attempts, text, None) for run, name, attempts, text, _deadline in found]


def outcomes_of(url: str) -> dict[str, tuple[str, str | None, str | None]]:
    sql = (
        "select workflow_uuid, s.status, o.output, o.error from dbos.workflow_status s"
        " left join dbos.workflow_output o using (workflow_uuid)"
    )
    with psycopg.connect(url) as connection:
        return {row[0]: row[1:] for row in connection.execute(sql)}


def test_an_outcome_that_cannot_be_stored_is_an_error_and_the_others_are_kept(
    store: PostgresStore, eventic: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad, last = claimed(store, 3)
    outcomes = Outcomes(store)
    texts = ((good, "1"), (bad, "a character that Postgres cannot store: \0"), (last, "3"))
    outcomes._waiting.extend(Outcome(of.run_id, of.owner, "SUCCESS", text, None) for of, text in texts[:2])
    outcomes.add(Outcome(last.run_id, last.owner, "SUCCESS", "3", None))
    outcomes.flush()
    outcomes.stop()
    found = outcomes_of(eventic)
    assert [found[of.run_id][:2] for of in (good, last)] == [("SUCCESS", "1"), ("SUCCESS", "3")]
    status, output, error = found[bad.run_id]
    assert (status, output) == ("ERROR", None)
    assert "could not be stored" in str(error)
    assert "outcome_lost" in {getattr(record, "action", None) for record in caplog.records}


def test_work_that_no_thread_takes_is_held_once(store: PostgresStore, eventic: str) -> None:
    work = claimed(store, 2)
    executor = Executor(store, adapter)
    load = executor.load(QUEUE)
    executor._threads.shutdown()  # as at the end of the interpreter
    executor.submit(load, work, ended_before=0)
    assert sorted(executor.held()) == sorted((each.run_id, "me") for each in work)
    assert load.running == 0
    executor.stop(drain_seconds=0)
    with psycopg.connect(eventic) as connection:
        statuses = connection.execute("select distinct status from dbos.workflow_status").fetchall()
    assert statuses == [("ENQUEUED",)]


def test_a_workflow_that_outlives_the_worker_ends_as_it_ends(store: PostgresStore) -> None:
    executor = Executor(store, adapter)
    executor.load(QUEUE).running = 1
    executor._foreign["run"] = QUEUE.name
    executor.stop(drain_seconds=0)
    executor.workflow_ended("run")  # what it raised would be the run's error
    assert executor.load(QUEUE).running == 1  # nobody is left to make room for more
    assert not executor._foreign
