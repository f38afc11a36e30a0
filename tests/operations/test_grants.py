"""`eventic grant`: a role that can do all that processes need, and nothing else, without one statement of DDL."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner
from conftest import execute, new_database, until
from fleet_worker import LOADS, FleetNote, trip
from psycopg import sql as composed

from eventic_core import ConfigurationError, Eventic, Invalid, Record, Retry, later, on
from eventic_core.automation import Run
from eventic_core.automation.declared import automation
from eventic_core.cli import main
from eventic_core.jobs import DagRun, dag, job
from eventic_core.operations import OperatorAct, erase, purge
from eventic_core.operations.dead_letters import discard_letter, retry_letter
from eventic_core.operations.metrics import render
from eventic_core.operations.queues import pause_queue, resume_queue
from eventic_core.operations.readiness import readiness
from eventic_core.operations.retention import What, apply, rules, set_rule
from eventic_core.operations.runs import cancel_run, fork_run, resume_run
from eventic_core.operations.workers import drain_workers, list_workers
from eventic_core.runtime import doctor, runs
from eventic_core.store.grants import Grant, grant, grant_script
from eventic_core.store.migrate import open_engine
from eventic_core.store.tables import metadata

PROGRAM = Path(__file__).with_name("fleet_worker.py")
QUEUE = Eventic.queue("granted_work")


class GrantedOrder(Record, unique=["number"]):
    number: int
    state: str = "new"

    def ship(self) -> None:
        self.state = "shipped"


class GrantedBill(Record):
    order: UUID


@on.create(GrantedOrder, retry=Retry(max_attempts=1))
def bill_granted_order(order: GrantedOrder) -> None:
    if order.number < 0:
        raise ValueError("negative")
    GrantedBill(order=order.id)


@Eventic.step(name="granted.step")
def outside() -> int:
    return 7


@Eventic.transaction(name="granted.write")
def write(number: int) -> UUID:
    return GrantedOrder(number=number).id


@Eventic.workflow(name="granted.flow")
def flow(number: int) -> str:
    made = GrantedOrder(number=number)
    made.state = str(outside())
    write(number + 1)
    QUEUE.enqueue(outside).result()
    return made.state


@automation("granted items", group_size=2)
def granted_items(item: int) -> int:
    if item == 0:
        raise ValueError("zero")
    return GrantedOrder(number=1000 + item).number


@job
def granted_numbers() -> list[int]:
    return [1, 2, 3]


@job(map="number", inputs={"number": "granted_numbers"})
def granted_each(number: int) -> int:
    return GrantedOrder(number=2000 + number).number


@job
def granted_sum(granted_each: list[int]) -> int:
    return sum(granted_each)


GRANTED = dag("granted: mapped", granted_numbers, granted_each, granted_sum)


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role)}@{host}"))


@pytest.fixture
def owner(server_url: str, prepared: str) -> Iterator[str]:
    """A database with all tables, in which whoever is not a superuser and tries DDL is refused and remembered."""
    with new_database(server_url, prepared) as url:
        execute(
            url,
            "create function public.no_ddl() returns event_trigger language plpgsql as $$ begin "
            "if not (select rolsuper from pg_roles where rolname = session_user) "
            "and current_setting('granted.ddl', true) is distinct from 'passes' then "
            "raise exception 'DDL_AT_RUN_TIME %', tg_tag; end if; end $$",
            "create event trigger no_ddl on ddl_command_start execute function public.no_ddl()",
        )
        yield url


@pytest.fixture
def role(owner: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A role of the test's own, with what it asks for."""
    name = f"granted-{uuid4().hex[:8]}"
    execute(owner, f'create role "{name}" login')
    with open_engine(owner) as engine:
        grant(engine, name, request.param)
    yield name
    execute(owner, f'drop owned by "{name}"', f'drop role "{name}"')


@pytest.fixture
def as_granted(owner: str, role: str) -> Iterator[str]:
    url = as_role(owner, role)
    Eventic.init(name="granted", database_url=url, auto_migrate=False)
    yield url
    Eventic.shutdown()


def pickles_in(url: str) -> list[str]:
    """Name the columns of all tables in which something is, or is said to be, a pickle."""
    columns = (
        "select format('%I.%I', table_schema, table_name), column_name from information_schema.columns "
        "where table_schema in ('eventic', 'dbos') and data_type in ('text', 'jsonb', 'bytea', 'character varying')"
    )
    found = []
    with psycopg.connect(url) as connection:
        rows = connection.execute(columns).fetchall()
        assert ("dbos.operation_outputs", "output") in rows
        for table, column in rows:
            query = f"select 1 from {table} where {column}::text ~ '^(\"?gA[RSJ]|.x80)|py_pickle' limit 1"
            if connection.execute(query.encode()).fetchone():
                found.append(f"{table}.{column}")
    return found


WORK = pytest.mark.parametrize("role", [Grant.WORK], indirect=True)


@WORK
def test_a_worker_does_all_there_is_without_ddl(as_granted: str, owner: str, caplog: pytest.LogCaptureFixture) -> None:
    Eventic.launch()
    order = GrantedOrder(number=1)
    order.state = "paid"
    later(order.ship).result(timeout_seconds=100)
    until(lambda: GrantedBill.where(GrantedBill.fields.order == order.id).first())
    GrantedOrder.create_many({"number": number} for number in range(100, 110))
    order.refresh()
    order.delete()
    GrantedOrder.restore(order.id)
    assert flow(10) == "7"
    assert QUEUE.enqueue(flow, 20).result(timeout_seconds=100) == "7"

    run = granted_items.start(granted_items.batch("granted", [0, 1, 2, 3]))
    run.wait(timeout_seconds=100)
    assert run.progress().completed == 3
    run.undo()
    assert GRANTED.start().wait(timeout_seconds=100).result("granted_sum") == 6006
    schedule = GRANTED.schedule(timedelta(seconds=1))
    until(lambda: DagRun.where(DagRun.fields.schedule_id == schedule.id).first())
    schedule.delete()

    broken = GrantedOrder(number=-1)
    letters = until(lambda: Eventic.dead_letters.list())
    assert letters[0].record_id == broken.id
    retry_letter(letters[0].id)
    until(lambda: Eventic.dead_letters.get(letters[0].id).state == "open")
    discard_letter(letters[0].id)

    assert pause_queue("granted_idle")
    waiting = QUEUE.enqueue(outside, delay_seconds=3600)
    assert cancel_run(waiting.id) == "CANCELLED"
    assert resume_run(waiting.id) != "CANCELLED"  # a worker may have it already
    assert resume_queue("granted_idle")
    assert waiting.result(timeout_seconds=100) == 7
    fork_run(waiting.id)

    assert readiness().is_well
    assert "eventic_up 1" in render()
    assert list_workers()
    assert doctor.examine(as_granted).is_reachable
    assert [act.act for act in OperatorAct.where().order_by(OperatorAct.fields.id).all()] == [
        "dead_letter.retry",
        "dead_letter.discard",
        "queue.pause",
        "run.cancel",
        "run.resume",
        "queue.resume",
        "run.fork",
    ]
    drain_workers([one.slot for one in list_workers()])
    Eventic.shutdown()
    assert pickles_in(owner) == []
    refused = [line for line in caplog.messages if "DDL_AT_RUN_TIME" in line or "permission denied" in line]
    assert refused == []


@WORK
def test_a_killed_worker_is_taken_over_by_another_of_the_role(as_granted: str, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.touch()
    held = Path(f"{marks}.granted")
    held.touch()
    environment = {**os.environ, "FLEET_MARKS": str(marks), "EVENTIC_AUTO_MIGRATE": "false"}
    workers = []
    handle = LOADS.enqueue(trip, "granted")
    for count in (1, 2):
        with subprocess.Popen(
            [sys.executable, PROGRAM, as_granted], env=environment, stdout=subprocess.PIPE, text=True
        ) as worker:
            workers.append(worker.pid)
            until(lambda count=count: len(marks.read_text().splitlines()) == count)
            if count == 2:
                held.unlink()
                assert handle.result(timeout_seconds=100) == worker.pid
            worker.kill()
    assert len(FleetNote.where(FleetNote.fields.about == "granted-before").all()) == 1


FORBIDDEN = (
    "create table eventic.mine ()",
    "alter table eventic.records disable trigger user",
    "drop table eventic.waits",
    "truncate eventic.waits",
    "create index mine on eventic.records (id)",
    "delete from eventic.records",
    "update eventic.records set data = '{}'",
    "update eventic.records set actor = 'somebody'",
    "delete from eventic.dead_letters",
    "delete from eventic.dag_runs",
    "insert into eventic.history_floors values ('x', now())",
    "update eventic.eventic_version set version_num = '0001'",
    "delete from dbos.workflow_status",
    "delete from dbos.operation_outputs",
    "truncate dbos.workflow_status",
    "update dbos.dbos_migrations set version = 0",
    "create schema mine",
)


@pytest.mark.parametrize("role", [Grant.WORK, Grant.OPERATE, Grant.READ], indirect=True)
def test_what_no_process_needs_is_refused(owner: str, role: str, request: pytest.FixtureRequest) -> None:
    what = request.node.callspec.params["role"]
    allowed = {
        Grant.OPERATE: {
            "delete from eventic.records",
            "update eventic.records set data = '{}'",
            "delete from eventic.dead_letters",
            "delete from eventic.dag_runs",
            "insert into eventic.history_floors values ('x', now())",
            "delete from dbos.workflow_status",
            "delete from dbos.operation_outputs",
        }
    }.get(what, set())
    execute(
        owner,
        "insert into eventic.records (version_id, id, version, class_type, data) "
        "values (gen_random_uuid(), gen_random_uuid(), 0, 'GrantedBill', '{}')",
    )
    with psycopg.connect(as_role(owner, role), autocommit=True) as connection:
        connection.execute("set granted.ddl = 'passes'")
        for statement in FORBIDDEN:
            if statement in allowed:  # then a trigger keeps it to what the package itself does
                with contextlib.suppress(psycopg.errors.RestrictViolation), connection.transaction(force_rollback=True):
                    connection.execute(statement)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
        writes = "insert into eventic.paused_queues (name) values ('x')"
        if what is Grant.READ:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(writes)
        else:
            connection.execute(writes)
            connection.execute("delete from eventic.paused_queues")
    execute(owner, "begin; set local eventic.retention = 'on'; delete from eventic.records; commit")


@pytest.mark.parametrize("role", [Grant.OPERATE], indirect=True)
def test_an_operator_erases_purges_and_applies_rules(as_granted: str, owner: str) -> None:
    note = FleetNote(about="secret", pid=1)
    note.about = "secret too"
    erase(note.id, fields=["about"])
    note.refresh()
    note.delete()
    assert purge(record_id=note.id) == 1
    set_rule("past", what=What.HISTORY, of="GrantedBill", older_than_seconds=1)
    apply(rules(["past"])[0])


@pytest.mark.parametrize("role", [Grant.READ], indirect=True)
def test_a_reader_sees_the_doctor_lists_and_metrics(as_granted: str) -> None:
    assert "eventic_up 1" in render()
    assert readiness().is_well
    assert list_workers(ended=True) is not None
    assert runs.list_runs() is not None
    assert Run.where().all() is not None
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        GrantedBill(order=uuid4())


def test_a_grant_says_all_that_a_role_has(owner: str, server_url: str) -> None:
    name = f"granted-{uuid4().hex[:8]}"
    execute(owner, f'create role "{name}" login')
    try:
        for what, may in ((Grant.OPERATE, True), (Grant.WORK, False)):
            with open_engine(owner) as engine:
                grant(engine, name, what)
            with psycopg.connect(owner) as connection:
                query = "select has_table_privilege(%s, 'eventic.records', 'delete')"
                assert connection.execute(query, (name,)).fetchone() == (may,)
    finally:
        execute(owner, f'drop owned by "{name}"', f'drop role "{name}"')


@pytest.mark.parametrize("role", [Grant.WORK], indirect=True)
def test_every_table_of_ours_is_readable_by_a_worker(owner: str, role: str) -> None:
    with psycopg.connect(owner) as connection:
        for table in metadata.tables.values():
            query = composed.SQL("select has_table_privilege({}, {}, 'select')").format(role, str(table))
            assert connection.execute(query).fetchone() == (True,), table


def test_a_grant_that_cannot_be_is_refused(owner: str, database_url: str) -> None:
    with open_engine(owner) as engine:
        with pytest.raises(ConfigurationError, match=r"no role 'nobody-here'.*create role"):
            grant(engine, "nobody-here", Grant.WORK)
        with pytest.raises(ConfigurationError, match="superuser or owns tables"):
            grant(engine, str(engine.url.username), Grant.WORK)
    with open_engine(database_url) as engine, pytest.raises(ConfigurationError, match="eventic migrate"):
        grant(engine, "nobody-here", Grant.WORK)
    with pytest.raises(Invalid, match="no name of a role"):
        grant_script('x"; drop table eventic.records; --', Grant.WORK)


def test_the_command_prints_what_it_would_do_and_does_it(owner: str) -> None:
    name, run = f"granted-{uuid4().hex[:8]}", CliRunner().invoke
    printed = run(main, ["grant", name, "--dry-run"])
    assert f'grant insert, update (superseded_at) on eventic.records to "{name}";' in printed.stdout
    assert run(main, ["grant", name, "--operator", "--read-only"]).exit_code == 2
    execute(owner, f'create role "{name}" login')
    try:
        done = run(main, ["grant", name, "--read-only", "--database-url", owner])
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{name} may read now.\n")
    finally:
        execute(owner, f'drop owned by "{name}"', f'drop role "{name}"')
