"""Migrations and declared indexes on a real Postgres: up, down, side by side, offline, and what they forbid."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

from eventic_core.errors import ConfigurationError, MigrationRequired, StoreUnavailable
from eventic_core.store.indexes import create_index, index_name
from eventic_core.store.migrate import (
    MIGRATION_LOCK,
    advisory_lock,
    autogenerate_differences,
    current_revision,
    downgrade,
    needed_revision,
    open_engine,
    require_current,
    sql_script,
    upgrade,
)
from eventic_core.store.tables import metadata, records

if TYPE_CHECKING:
    from collections.abc import Iterator

INSERT = """
insert into eventic.records (version_id, id, version, class_type, data)
values (gen_random_uuid(), %s, 0, 'Todo', '{"text": "a"}')
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    with open_engine(database_url) as engine:
        yield engine


@pytest.fixture
def migrated(engine: sa.Engine) -> sa.Engine:
    upgrade(engine)
    return engine


@pytest.fixture
def session(migrated: sa.Engine, database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(INSERT, [uuid4()])
        yield connection


def _structure(engine: sa.Engine) -> dict[str, list[Any]]:
    """Read everything that defines schema eventic, except the version table."""
    queries = {
        "columns": "select table_name, column_name, ordinal_position, data_type, is_nullable,"
        " column_default, is_identity from information_schema.columns"
        " where table_schema = 'eventic' and table_name not in ('eventic_version', 'run_moves')",  # which is a view
        "indexes": "select indexname, indexdef from pg_indexes"
        " where schemaname = 'eventic' and tablename <> 'eventic_version'",
        "constraints": "select conname, pg_get_constraintdef(oid) from pg_constraint"
        " where connamespace = to_regnamespace('eventic') and"
        " conrelid is distinct from to_regclass('eventic.eventic_version')",
        "comments": "select c.relname, d.objsubid, d.description from pg_description d"
        " join pg_class c on c.oid = d.objoid where c.relnamespace = to_regnamespace('eventic') and c.relkind <> 'v'",
        "triggers": "select tgname, pg_get_triggerdef(oid) from pg_trigger where tgname similar to '(records|run)%'",
        "views": "select viewname, definition from pg_views where schemaname = 'eventic'",
        "functions": "select proname, prosrc from pg_proc where pronamespace = to_regnamespace('eventic')",
    }
    with engine.connect() as connection:
        return {
            name: sorted(tuple(row) for row in connection.execute(sa.text(query))) for name, query in queries.items()
        }


def _schemas(engine: sa.Engine) -> set[str]:
    with engine.connect() as connection:
        return set(
            connection.scalars(sa.text("select nspname from pg_namespace where nspname in ('eventic', 'public')"))
        )


def test_upgrade_creates_exactly_the_declared_tables(migrated: sa.Engine) -> None:
    structure = _structure(migrated)
    with migrated.connect() as connection:
        assert current_revision(connection) == needed_revision()
        assert autogenerate_differences(connection) == []
    downgrade(migrated, "base")
    with migrated.begin() as connection:
        connection.execute(sa.schema.CreateSchema("eventic"))
        metadata.create_all(connection)
    declared = _structure(migrated)
    for part in ("columns", "indexes", "constraints", "comments"):
        assert structure[part] == declared[part]


def test_autogenerate_sees_a_missing_index_and_a_foreign_column(migrated: sa.Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(sa.text("drop index eventic.records_feed"))
        connection.execute(sa.text("alter table eventic.records add column extra text"))
        kinds = {difference[0] for difference in autogenerate_differences(connection)}
    assert kinds == {"add_index", "remove_column"}


def test_a_user_named_like_the_schema_sees_no_differences(migrated: sa.Engine, database_url: str) -> None:
    with migrated.connect() as connection:
        assert autogenerate_differences(connection) == []
    separator = "&" if "?" in database_url else "?"
    with open_engine(f"{database_url}{separator}options=-csearch_path%3Deventic,public") as theirs:
        upgrade(theirs)
        with theirs.connect() as connection:
            assert connection.dialect.default_schema_name == "eventic"
            assert autogenerate_differences(connection) == []
            assert connection.dialect.default_schema_name == "eventic"


def test_downgrade_drops_all_and_upgrade_builds_it_again(migrated: sa.Engine) -> None:
    before = _structure(migrated)
    downgrade(migrated, "base")
    assert _schemas(migrated) == {"public"}
    downgrade(migrated, "base")
    upgrade(migrated)
    assert _structure(migrated) == before


def test_downgrade_keeps_a_schema_that_holds_objects_of_others(migrated: sa.Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(sa.text("create table eventic.mine (x int)"))
    downgrade(migrated, "base")
    with migrated.connect() as connection:
        assert current_revision(connection) is None
    upgrade(migrated)
    with migrated.connect() as connection:
        assert current_revision(connection) == needed_revision()


def test_a_database_at_head_costs_one_query_and_waits_for_no_lock(migrated: sa.Engine) -> None:
    statements: list[str] = []
    with migrated.connect() as holder, advisory_lock(holder, MIGRATION_LOCK):
        sa.event.listen(migrated, "before_cursor_execute", lambda *args: statements.append(args[2]))
        upgrade(migrated)
    assert len([statement for statement in statements if "advisory" not in statement]) == 1


def test_threads_that_upgrade_at_once_take_turns(database_url: str) -> None:
    barrier = threading.Barrier(8)

    def start(_: int) -> str | None:
        with open_engine(database_url) as engine:
            barrier.wait()
            upgrade(engine)
            with engine.connect() as connection:
                return current_revision(connection)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(start, range(8))) == {needed_revision()}


def test_processes_that_upgrade_at_once_take_turns(engine: sa.Engine, database_url: str) -> None:
    code = "import sys; from eventic_core.store import migrate as m\nwith m.open_engine(sys.argv[1]) as e: m.upgrade(e)"
    with engine.connect() as holder, advisory_lock(holder, MIGRATION_LOCK):
        children = [subprocess.Popen([sys.executable, "-c", code, database_url]) for _ in range(8)]
    assert [child.wait(100) for child in children] == [0] * 8
    with engine.connect() as connection:
        assert autogenerate_differences(connection) == []


def test_a_chain_of_the_users_own_stays_untouched(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        theirs = MigrationContext.configure(connection)
        theirs._ensure_version_table()
        connection.execute(sa.text("insert into alembic_version values ('abc')"))
        connection.execute(sa.text("create table public.records (x int)"))
    upgrade(engine)
    downgrade(engine, "base")
    upgrade(engine)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "abc"
        assert connection.scalar(sa.text("select count(*) from public.records")) == 0
        assert autogenerate_differences(connection) == []


def test_the_offline_script_gives_the_same_schema(migrated: sa.Engine, database_url: str) -> None:
    before = _structure(migrated)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql_script(database_url, "base", down=True).encode())
        assert _schemas(migrated) == {"public"}
        connection.execute(sql_script(database_url).encode())
    assert _structure(migrated) == before
    upgrade(migrated)
    with migrated.connect() as connection:
        require_current(connection, "db")


def test_a_failed_migration_leaves_nothing(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("create schema eventic"))
        connection.execute(sa.text("create table eventic.record_classes (x int)"))
    with pytest.raises(ConfigurationError, match=r"changed nothing: relation \"record_classes\" already exists"):
        upgrade(engine)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names("eventic") == ["record_classes"]
        here = "database = (select oid from pg_database where datname = current_database())"
        held = connection.scalar(sa.text(f"select count(*) from pg_locks where locktype = 'advisory' and {here}"))
    assert held == 0


def test_a_database_without_tables_is_refused_inside_a_transaction_that_goes_on(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("create table public.mine (x int)"))
        with pytest.raises(MigrationRequired, match="the shop") as caught:
            require_current(connection, "the shop")
    assert (caught.value.found, caught.value.needed) == (None, needed_revision())
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names("public") == ["mine"]


def test_a_database_newer_than_the_code_is_refused(migrated: sa.Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(sa.text("update eventic.eventic_version set version_num = '9999'"))
    for act in (upgrade, lambda engine: downgrade(engine, "base")):
        with pytest.raises(MigrationRequired) as caught:
            act(migrated)
        assert caught.value.found == "9999"


def test_an_unknown_revision_is_refused(migrated: sa.Engine, database_url: str) -> None:
    for act in (upgrade, downgrade):
        with pytest.raises(
            ConfigurationError, match=r"'nonsense'.*0001, 0002, 0003, 0004, 0005, 0006, 0007, head and base"
        ):
            act(migrated, "nonsense")
    with pytest.raises(ConfigurationError, match="'nonsense'"):
        sql_script(database_url, "nonsense")


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with (
        open_engine("postgresql://me:hunter2@127.0.0.1:1/db") as engine,
        pytest.raises(StoreUnavailable, match=r"me:\*\*\*@127") as caught,
    ):
        upgrade(engine)
    assert "hunter2" not in str(caught.value)


def test_importing_and_upgrading_configures_no_logging(engine: sa.Engine) -> None:
    before = (list(logging.root.handlers), logging.root.level, logging.getLogger("alembic").level)
    upgrade(engine)
    assert (list(logging.root.handlers), logging.root.level, logging.getLogger("alembic").level) == before


@pytest.mark.parametrize("column", [column.name for column in records.columns if column.name != "superseded_at"])
def test_no_column_of_a_version_can_be_changed(session: psycopg.Connection[Any], column: str) -> None:
    expression = "default" if column == "position" else f'"{column}"'
    with pytest.raises(psycopg.errors.RestrictViolation, match="immutable: version 0 of record"):
        session.execute(f'update eventic.records set "{column}" = {expression}')


def test_a_version_is_superseded_once(session: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation):
        session.execute("update eventic.records set superseded_at = null")
    session.execute("update eventic.records set superseded_at = clock_timestamp()")
    for value in ("clock_timestamp()", "null", "superseded_at"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            session.execute(f"update eventic.records set superseded_at = {value}")


@pytest.mark.parametrize("statement", ["delete from eventic.records", "truncate eventic.records"])
def test_only_retention_removes_versions(session: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="is refused") as caught:
        session.execute(statement.encode())
    assert "eventic.retention" in (caught.value.diag.message_hint or "")
    with session.transaction():
        session.execute("set local eventic.retention = 'on'")
        with pytest.raises(psycopg.errors.RestrictViolation), session.transaction():
            session.execute("update eventic.records set reason = 'x'")
        session.execute(statement.encode())
    with pytest.raises(psycopg.errors.RestrictViolation):  # the setting ended with its transaction
        session.execute(statement.encode())


@pytest.mark.parametrize(("kind", "expression"), [("json", "data -> 'text'"), ("text", "data ->> 'text'")])
def test_a_declared_index_is_built_once_and_used(
    session: psycopg.Connection[Any], migrated: sa.Engine, kind: Any, expression: str
) -> None:
    assert create_index(migrated, "Todo", "text", kind)
    assert not create_index(migrated, "Todo", "text", kind)
    with migrated.connect() as connection:
        assert autogenerate_differences(connection) == []
    session.execute("set enable_seqscan = off")
    collate = ' collate "C"' if kind == "text" else ""
    plan = session.execute(
        f"explain select 1 from eventic.records where superseded_at is null and not tombstone and class_type = 'Todo'"
        f" order by ({expression}){collate}".encode()
    ).fetchall()
    assert "records_ix_Todo_text" in str(plan)


def test_an_interrupted_build_and_one_of_the_other_kind_are_replaced(
    session: psycopg.Connection[Any], migrated: sa.Engine
) -> None:
    create_index(migrated, "Todo", "text", "json")
    session.execute(
        "update pg_index set indisvalid = false where indexrelid = 'eventic.\"records_ix_Todo_text\"'::regclass"
    )
    assert create_index(migrated, "Todo", "text", "json")
    assert create_index(migrated, "Todo", "text", "text")
    assert not create_index(migrated, "Todo", "text", "text")
    assert create_index(migrated, "Todo", "text", "json")


def test_processes_that_build_at_once_take_turns(migrated: sa.Engine) -> None:
    fields = ["a", "a", "b", "b", "a", "c"]
    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda field: create_index(migrated, "Todo", field), fields))
    assert sorted(built) == [False, False, False, True, True, True]


def test_index_names_are_quoted_short_and_unambiguous(session: psycopg.Connection[Any], migrated: sa.Engine) -> None:
    assert create_index(migrated, "it's 100%", 'a"b%s')
    assert index_name("Todo", "due_at") == "records_ix_Todo_due_at"
    assert index_name("a_b", "c") != index_name("a", "b_c")
    long = [index_name("Ö" * 40, "x" * length) for length in (30, 31)]
    assert len(set(long)) == 2
    assert all(len(name.encode()) <= 63 for name in long)
    assert create_index(migrated, "Ö" * 40, "x" * 30)
    assert not create_index(migrated, "Ö" * 40, "x" * 30)


def test_a_build_on_missing_tables_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        create_index(engine, "Todo", "text")


def test_a_migration_that_waits_for_an_open_transaction_lets_writers_pass_meanwhile(database_url: str) -> None:
    with open_engine(database_url) as engine:
        upgrade(engine, "0005")
        with psycopg.connect(database_url) as reader, psycopg.connect(database_url, autocommit=True) as writer:
            reader.execute("select count(*) from eventic.records")  # and its transaction stays open
            migrating = threading.Thread(target=upgrade, args=(engine,))
            migrating.start()
            waiting = "select count(*) from pg_locks where not granted and relation = 'eventic.records'::regclass"
            while writer.execute(waiting).fetchone() == (0,):
                pass
            writer.execute("insert into eventic.record_classes values ('Passing', 1)")
            writer.execute("select count(*) from eventic.records")  # would wait for as long as the reader is there
            assert migrating.is_alive()
            reader.rollback()
            migrating.join(timeout=100)
        with engine.connect() as connection:
            assert current_revision(connection) == needed_revision()
