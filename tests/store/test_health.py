"""What is read of a database's health: of an empty one, of one in trouble, with few rights, and at what cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from conftest import execute, new_database

from eventic_core import Eventic, Record
from eventic_core.errors import ConfigurationError, StoreUnavailable
from eventic_core.store import health
from eventic_core.store.health import MOST, Unread, Waiting, WorkerSession
from eventic_core.store.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, application_version, priority, created_at,
                                  updated_at, completed_at, executor_id, delay_until_epoch_ms)
select kind || n, kind, 'health', 'queue-' || n % 3, '1', 0, 1000000000000 + n, 1000000000000 + n,
       case when kind = 'SUCCESS' then 1000000000000 + n end, 'worker-' || n % 2,
       case when kind = 'DELAYED' then 1000000000000 + n end
from unnest(array['SUCCESS', 'ENQUEUED', 'DELAYED', 'PENDING']) as kind, generate_series(1, 4000) as n
"""


class HealthNote(Record):
    text: str = ""


@pytest.fixture
def url(server_url: str, prepared: str) -> Iterator[str]:
    """A database of the test's own with both kinds of tables."""
    with new_database(server_url, prepared) as found:
        yield found


@pytest.fixture
def role(server_url: str) -> Iterator[str]:
    """A role that may log in, and nothing else."""
    name = f"health_{uuid4().hex[:12]}"
    execute(server_url, f"create role {name} login")
    yield name
    execute(server_url, f"drop role {name}")


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


# -- what is there


def test_an_empty_database_has_no_revisions_and_tables_that_are_not_there(database_url: str) -> None:
    found = health.read(database_url)
    assert (found.revisions.found, found.revisions.dbos_found, found.newest_version) == (None, None, None)
    unread = {name for name in found._fields if isinstance(getattr(found, name), Unread)}
    assert unread == {"paused", "queues", "ready", "delayed", "running", "ended", "letters", "is_feed_ahead"}
    assert all(getattr(found, name).is_absent for name in unread)
    assert (found.workers, found.tables) == ([], [])


def test_a_database_dbos_was_never_launched_on_has_our_revision(migrated_url: str) -> None:
    found = health.read(migrated_url)
    assert (found.revisions.found, found.revisions.dbos_found) == (found.revisions.needed, None)
    assert (found.letters, found.is_feed_ahead) == ([], False)


def test_the_revision_of_dbos_is_what_dbos_makes(url: str) -> None:
    found = health.read(url).revisions
    assert (found.dbos_found, found.dbos_needed) == (found.dbos_found, found.dbos_found)


def test_an_old_revision_is_found(url: str) -> None:
    execute(
        url, "update eventic.eventic_version set version_num = '0003'", "update dbos.dbos_migrations set version = 7"
    )
    found = health.read(url).revisions
    assert (found.found, found.dbos_found) == ("0003", 7)


def test_a_server_says_who_it_is(url: str) -> None:
    server = health.read(url).server
    assert server.version_number >= 140000
    assert f"/{server.database}" == urlsplit(url).path
    assert (server.is_replica, server.is_read_only, server.encoding) == (False, False, "UTF8")
    assert server.latency_seconds > 0
    assert abs(server.ahead_seconds) < 60  # it is this machine's


def test_sessions_that_may_not_write_are_found_though_this_one_is_so_itself(url: str) -> None:
    database = urlsplit(url).path[1:]
    execute(url, f"alter database {database} set default_transaction_read_only = on")
    assert health.read(url).server.is_read_only


def test_reading_changes_nothing_and_leaves_no_session(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        before = connection.execute("select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables").fetchone()
        health.read(url)
        after = connection.execute("select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables").fetchone()
        sessions = "select count(*) from pg_stat_activity where application_name = 'eventic-doctor' and datname = %s"
        while connection.execute(sessions, (urlsplit(url).path[1:],)).fetchone() != (0,):
            time.sleep(0.02)
    assert before == after


@pytest.mark.parametrize("url", ["postgresql://ada:hunter2@127.0.0.1:1/shop", "postgresql:///shop?host=/nowhere"])
def test_a_server_that_does_not_answer_is_unavailable(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        health.read(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://ada@db/shop", "postgresql://ada:hunter2@db/shop?nonsense=1"])
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        health.read(url)
    assert "hunter2" not in str(caught.value)


# -- workers, connections and transactions


def test_who_holds_a_slot_is_there_with_its_age(eventic: str) -> None:
    from eventic_core.records import current_store

    store: Any = current_store()
    slot = Slot(store.database)
    slot.take()
    try:
        (found,) = health.read(eventic).workers
    finally:
        slot.give_up()
    assert (found.slot, found.seen_seconds) == ("worker-0", None)
    assert found.up_seconds is not None
    assert found.up_seconds >= 0
    assert found.machine is not None


def test_connections_of_this_database_and_of_all_are_counted(url: str) -> None:
    with psycopg.connect(url), psycopg.connect(url):
        found = health.read(url).connections
    assert not isinstance(found, Unread)
    assert found.of_database == 3
    assert found.of_database <= found.used <= found.limit
    assert found.database_limit is None
    execute(url, f"alter database {urlsplit(url).path[1:]} connection limit 7")
    assert health.read(url).connections[3] == 7


def test_an_idle_transaction_that_wrote_holds_back_the_feed_and_vacuum(url: str) -> None:
    with psycopg.connect(url, application_name="forgotten") as connection:
        connection.execute("select pg_current_xact_id()")
        execute(url, "select pg_current_xact_id()")  # which is newer, and has ended
        found = health.read(url)
        (held,) = [one for one in found.transactions if one.program == "forgotten"]
        assert (held.pid, held.state) == (connection.info.backend_pid, "idle in transaction")
        assert (held.holds_feed, held.holds_vacuum) == (True, True)
        assert not isinstance(found.horizon, Unread)
        assert found.horizon.behind >= 1
    assert [one for one in health.read(url).transactions if one.program == "forgotten"] == []


def test_an_idle_snapshot_holds_back_vacuum_and_one_without_nothing(url: str) -> None:
    with psycopg.connect(url, application_name="reader") as reader:
        reader.execute("select 1")
        assert [one for one in health.read(url).transactions if one.program == "reader"] == []
        reader.rollback()
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select 1")
        (held,) = [one for one in health.read(url).transactions if one.program == "reader"]
    assert (held.holds_feed, held.holds_vacuum) == (False, True)


# -- work and tables


def test_lists_that_are_long_are_read_to_a_limit(url: str) -> None:
    execute(url, MANY)
    found = health.read(url)
    assert [(group.queue, group.run_count, group.is_more) for group in found.ready] == [
        (f"queue-{number}", MOST, True) for number in range(3)
    ]
    assert sum(group.run_count for group in found.delayed) == MOST
    assert all(group.is_more and group.oldest_seconds > 1e6 for group in found.delayed)
    assert sum(group.run_count for group in found.running) == 4000
    assert {end.executor for end in found.ended} == {"worker-0", "worker-1"}


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "unknown to the planner"])
def test_no_read_looks_at_more_rows_than_its_limit(url: str, analyzed: bool) -> None:
    execute(
        url,
        MANY,
        """insert into eventic.dead_letters (id, handler, class_type, record_id, version, attempts, error)
           select gen_random_uuid(), 'h', 'C', gen_random_uuid(), n, 1, '{}' from generate_series(1, 4000) n""",
        """insert into eventic.records (version_id, id, version, class_type, data)
           select gen_random_uuid(), gen_random_uuid(), 0, 'C', '{}' from generate_series(1, 4000) n""",
        *(["analyze"] if analyzed else []),
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(health._SESSION)
        for name in ("ready", "delayed", "running", "ended", "letters", "feed_ahead"):
            sql = b"explain (analyze, format json) " + health._SQL[name].encode()
            (plan,) = connection.execute(sql, {"most": MOST}).fetchone() or ()
            looked = [
                node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                for node in nodes(plan[0]["Plan"])
                if node.get("Relation Name") in ("workflow_status", "records", "dead_letters")
            ]
            assert looked, name
            assert max(looked) <= MOST, (name, plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_work_is_told_apart_by_what_decides_who_takes_it(url: str) -> None:
    parked = """'{"eventic.waiting_for": "class Gone", "eventic.times": 4}'"""
    execute(
        url,
        f"""insert into dbos.workflow_status (workflow_uuid, status, queue_name, application_version, attributes,
                                              queue_partition_key, created_at, updated_at, delay_until_epoch_ms)
            select id, status, 'q', version, attributes::jsonb, key, 0, ms, ms
            from (select (extract(epoch from now()) * 1000)::bigint as ms) now,
                 (values ('a', 'ENQUEUED', '1', null, null), ('b', 'ENQUEUED', '1', 'null', null),
                         ('c', 'ENQUEUED', null, null, 'lane'), ('d', 'ENQUEUED', '2', {parked}, null),
                         ('e', 'DELAYED', '2', {parked}, null), ('f', 'SUCCESS', '2', {parked}, null))
                 as w (id, status, version, attributes, key)""",
    )
    found = health.read(url)
    assert [group[:7] for group in found.ready] == [
        ("q", "1", True, None, 0, 2, False),
        ("q", "2", True, "class Gone", 4, 1, False),
        ("q", None, False, None, 0, 1, False),
    ]
    assert [group[:7] for group in found.delayed] == [("q", "2", True, "class Gone", 4, 1, False)]
    assert all(isinstance(group, Waiting) and 0 <= group.oldest_seconds < 60 for group in found.ready)


def test_dead_rows_are_counted_and_tables_without_autovacuum_named(url: str) -> None:
    execute(url, "alter table dbos.workflow_status set (autovacuum_enabled = false)")
    execute(url, MANY, "delete from dbos.workflow_status where status <> 'SUCCESS'")
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(health._SQL["vacuum"].encode()).fetchall()[1][2] < 12_000:
            time.sleep(0.05)  # they are counted a moment after a session has ended
    found = {table.name: table for table in health.read(url).tables}
    assert (found["dbos.workflow_status"].alive, found["dbos.workflow_status"].dead) == (4000, 12_000)
    assert [name for name, table in found.items() if table.is_excluded] == ["dbos.workflow_status"]
    assert found["dbos.workflow_status"].vacuumed_seconds is None


def test_the_largest_tables_come_with_the_whole(url: str) -> None:
    execute(url, MANY)
    found = health.read(url).sizes
    sizes = {size.name: size.size_bytes for size in found}
    assert found[0].name == ""
    assert found[1].name == "dbos.workflow_status"
    assert len(sizes) == 6
    assert sizes[""] > sizes["dbos.workflow_status"] > 1_000_000


def test_dead_letters_are_counted_by_handler(url: str) -> None:
    execute(
        url,
        """insert into eventic.dead_letters (id, handler, class_type, record_id, version, attempts, error, state)
           select gen_random_uuid(), handler, 'C', gen_random_uuid(), 1, 1, '{}', state
           from (values ('a', 'open'), ('b', 'open'), ('b', 'open'), ('b', 'retried'), ('c', 'discarded'))
                as l (handler, state)""",
    )
    assert [(letters.handler, letters.letter_count) for letters in health.read(url).letters] == [("b", 2), ("a", 1)]


# -- rights


def test_a_role_without_rights_sees_what_everybody_may(url: str, role: str) -> None:
    with psycopg.connect(url, application_name="somebody") as other:
        other.execute("select pg_current_xact_id()")
        execute(url, "select pg_current_xact_id()")
        found = health.read(as_role(url, role))
    denied = {name for name in found._fields if isinstance(getattr(found, name), Unread)}
    assert denied == {
        *("paused", "newest_version", "queues", "ready", "delayed", "running", "ended", "letters", "is_feed_ahead")
    }
    assert all("not visible to this role" in getattr(found, name).why for name in denied)
    assert isinstance(found.revisions.found, Unread)
    assert isinstance(found.revisions.dbos_found, Unread)
    assert found.server.role == role
    assert found.transactions == []
    assert not isinstance(found.horizon, Unread)
    assert (found.horizon.behind >= 1, found.horizon.hidden >= 1) == (True, True)
    assert not isinstance(found.connections, Unread)
    assert found.connections.of_database == 2


def test_the_role_of_an_application_sees_all_of_its_own(url: str, role: str) -> None:
    execute(
        url,
        *(f"grant usage on schema {schema} to {role}" for schema in ("eventic", "dbos")),
        *(f"grant select on all tables in schema {schema} to {role}" for schema in ("eventic", "dbos")),
    )
    found = health.read(as_role(url, role))
    execute(url, f"drop owned by {role}")
    assert [name for name in found._fields if isinstance(getattr(found, name), Unread)] == []


def test_a_worker_of_another_role_is_alive_though_nothing_else_of_it_is_visible(eventic: str, role: str) -> None:
    from eventic_core.records import current_store

    store: Any = current_store()
    HealthNote(text="somebody writes meanwhile")
    slot = Slot(store.database)
    slot.take()
    try:
        (found,) = health.read(as_role(eventic, role)).workers
    finally:
        slot.give_up()
    assert found == WorkerSession("worker-0", None, None)
    assert Eventic.settings().name == "tests"
