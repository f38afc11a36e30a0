"""Each oracle of the chaos suite sees a bug that is planted in the tables, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from chaos_load import SCHEMA, ChaosItem, ChaosLedger, ChaosMade, ChaosSeen
from conftest import new_database
from limits import CONCURRENCY
from oracles import ORACLES, changed, ends, problems

from eventic_core import Eventic
from eventic_core.runtime import adapter
from eventic_core.store.slots import Slot

RUN = UUID(int=7)
DONE = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, created_at, updated_at, completed_at,
                                  priority)
values ('story-1', 'SUCCESS', 'story', 'chaos', 1, 1, 1, 0);
insert into dbos.workflow_output (workflow_uuid, output) values ('story-1', '"story-1"');
"""
OPEN = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, executor_id, owner_xid, delay_until_epoch_ms,
                                  created_at, updated_at, priority)
values ('open-1', %s, 'story', %s, %s, %s, %s, 1, 1, 0)
"""
COUNTERS = """
insert into eventic.run_counters (run_id, batch_execution_id, state, total, pending, completed)
values (%s, %s, 'ended', %s, 0, %s)
"""
EFFECT = """
insert into chaos.effects (run, step, key, pid, began_at, ended_at)
values (%s, %s, %s, 1, to_timestamp(%s), to_timestamp(%s))
"""


@pytest.fixture(scope="module")
def told(server_url: str) -> Iterator[str]:
    """A database in which all is well."""
    with new_database(server_url) as url:
        Eventic.init(name="oracles", database_url=url)
        adapter.migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute(DONE)
            connection.execute("insert into dbos.queues (name) values ('chaos')")
            tell_the_story()
            connection.execute(EFFECT, ("story-1", "first", "story-1-1", 1, 2))
            connection.execute(EFFECT, ("story-1", "second", "story-1-9", 3, 4))
            for batch, total in ((UUID(int=0), 0), (UUID(int=1), 0)):
                connection.execute(COUNTERS, (RUN, batch, total, 0))
        yield url
        Eventic.shutdown()


@pytest.fixture
def planted(told: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may change what nobody may, for triggers are off; what it changed is taken back."""
    with psycopg.connect(told) as connection:
        connection.execute("set session_replication_role = replica")
        yield connection
        connection.rollback()


def tell_the_story() -> None:
    """What a story leaves that went well."""
    item = ChaosItem(name="story-1")
    for value in (1, 11, 111):
        item.value = value
    for version in range(4):
        ChaosSeen(name=f"{item.id} {version}")
    ChaosMade(name="settled story-1")
    ChaosMade(name="followed story-1")
    ChaosLedger(name="ledger", entries=[0, 1, 2])


def sql(*statements: str) -> Any:
    def plant(connection: psycopg.Connection[Any]) -> None:
        for statement in statements:
            assert connection.execute(statement).rowcount

    return plant


def opened(*values: Any) -> Any:
    return lambda connection: connection.execute(OPEN, values)


def effect(*values: Any) -> Any:
    return lambda connection: connection.execute(EFFECT, values)


def crowd(connection: psycopg.Connection[Any]) -> None:
    for number in range(CONCURRENCY + 1):
        connection.execute(EFFECT, (f"crowd-{number}", "first", f"crowd-{number}-1", 100 + number, 200))


OF_ITEMS = "class_type = 'ChaosItem'"
ENTITY = """insert into eventic.records (version_id, id, version, class_type, data)
    values (gen_random_uuid(), gen_random_uuid(), 0, '{cls}', '{data}')"""
TICK = ENTITY.format(cls="DagRun", data='{"schedule_id": "s", "due_at": "2026-01-01T00:00:00Z"}')
ENTRIES = """update eventic.records set data = jsonb_set(data, array['entries'], '{}')
    where class_type = 'ChaosLedger'"""
STAMPED = "update eventic.records set workflow_id = 'w', step_id = 1 where class_type = 'ChaosItem'"
PLANTS: list[tuple[str, Any]] = [
    ("versions have gaps", sql(f"delete from eventic.records where {OF_ITEMS} and version = 1")),
    (
        "versions do not chain",
        sql(f"update eventic.records set superseded_at = now() + interval '1 hour' where {OF_ITEMS} and version = 0"),
    ),
    ("a step wrote a record twice", sql(STAMPED)),
    ("something was made twice", sql(ENTITY.format(cls="ChaosMade", data='{"name": "settled story-1"}'))),
    ("an unfinished run has no owner, due time or named wait", opened("PENDING", "chaos", "worker-0", None, None)),
    ("an unfinished run has no owner, due time or named wait", opened("PENDING", "chaos", None, "token", None)),
    ("an unfinished run has no owner, due time or named wait", opened("DELAYED", "chaos", None, None, None)),
    ("an unfinished run has no owner, due time or named wait", opened("ENQUEUED", None, None, None, None)),
    ("an unfinished run has no owner, due time or named wait", opened("ENQUEUED", "no such queue", None, None, None)),
    ("a run that ended has no outcome, or two", sql("delete from dbos.workflow_output")),
    ("a run that ended has no outcome, or two", sql("update dbos.workflow_output set error = 'x'")),
    ("a run that ended has no outcome, or two", sql("update dbos.workflow_status set status = 'ERROR'")),
    ("a run that ended has no outcome, or two", sql("update dbos.workflow_status set owner_xid = 'zombie'")),
    ("counters are not what the rows say", sql("update eventic.run_counters set completed = 1, total = 1")),
    ("counters are not what the rows say", sql("update eventic.run_counters set total = 1")),
    (
        "parts do not add up to their run",
        sql(f"update eventic.run_counters set failed = 1 where batch_execution_id = '{UUID(int=1)}'"),
    ),
    ("a due time has two runs", sql(TICK, TICK)),
    ("a step's idempotency key changed, or is two steps'", effect("story-1", "first", "story-1-2", 1, 2)),
    ("a step's idempotency key changed, or is two steps'", effect("story-2", "first", "story-1-1", 1, 2)),
    ("a step that was on record was done again", effect("story-1", "first", "story-1-1", 5, 6)),
    ("a worker did more at a time than the queue allows", crowd),
    (
        "keyed work was not done in order",
        sql(ENTRIES.format("[0, 2, 1]")),
    ),
    (
        "keyed work was not done in order",
        sql(ENTRIES.format("[0, 1, 1]")),
    ),
    ("work is left over", opened("ENQUEUED", "chaos", None, None, None)),
    ("work is left on the queue of called runs", opened("ENQUEUED", "eventic_direct", None, None, None)),
    ("a run is owned by a worker that is dead", opened("PENDING", "chaos", "worker-9", "token", None)),
    ("somebody waits for a run that has ended", sql(f"insert into eventic.waits values ('{RUN}', 'work')")),
    (
        "a version was not handled once",
        sql("delete from eventic.records where class_type = 'ChaosSeen' and data ->> 'name' like '% 2'"),
    ),
    (
        "a version was not handled once",
        sql(
            "insert into eventic.records (version_id, id, version, class_type, data) select gen_random_uuid(), "
            "gen_random_uuid(), 0, class_type, data from eventic.records where class_type = 'ChaosSeen' limit 1"
        ),
    ),
    ("a story that succeeded left something out", sql(f"delete from eventic.records where {OF_ITEMS} and version = 3")),
    ("a step that succeeded left no effect", sql("delete from chaos.effects where step = 'second'")),
    (
        "work that follows was not done once",
        sql("delete from eventic.records where data ->> 'name' = 'followed story-1'"),
    ),
    ("a run of items or jobs has not ended", sql(ENTITY.format(cls="Run", data='{"status": "PROCESSING"}'))),
]


@pytest.mark.parametrize(("what", "plant"), PLANTS, ids=[f"{n}-{what}" for n, (what, _plant) in enumerate(PLANTS)])
def test_an_oracle_sees_its_bug(planted: psycopg.Connection[Any], what: str, plant: Any) -> None:
    assert problems(planted, {what: ORACLES[what]}) == []
    plant(planted)
    assert problems(planted, {what: ORACLES[what]})


def test_all_are_quiet_where_all_is_well(planted: psycopg.Connection[Any]) -> None:
    assert problems(planted, ORACLES) == []


def test_a_slot_and_a_session_that_are_left_are_seen(planted: psycopg.Connection[Any], told: str) -> None:
    from eventic_core.runtime.process import process

    slot = Slot(process().store.database)
    slot.take()
    with psycopg.connect(told, application_name="chaos"):
        found = problems(
            planted, {name: ORACLES[name] for name in ("a slot is still held", "a session of a worker is still there")}
        )
    slot.give_up()
    assert len(found) == 2


def test_an_end_that_changes_is_seen(planted: psycopg.Connection[Any]) -> None:
    before = ends(planted)
    assert changed(before, ends(planted)) == []
    planted.execute("update dbos.workflow_output set output = '1'")
    assert len(changed(before, ends(planted))) == 1
    planted.execute("update dbos.workflow_status set status = 'PENDING'")
    assert len(changed(before, ends(planted))) == 1


def test_every_oracle_has_a_plant() -> None:
    alone = {"a slot is still held", "a session of a worker is still there"}
    assert {what for what, _plant in PLANTS} | alone == set(ORACLES)
