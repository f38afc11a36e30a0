"""What we rely on of DBOS beside its public calls: private names, columns, and what its own calls leave in its tables.

Read as the list of what to look at when a new version of DBOS comes out: one fact, one test.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import itertools
import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dbos
import psycopg
import pytest
from conftest import new_database, until
from dbos import DBOS, DBOSClient, SetEnqueueOptions, SetWorkflowID, SQLAlchemyDatasource
from dbos import _context as context
from dbos import _core as core
from dbos import _dbos as instance
from dbos import _queue as queues
from dbos import _utils as utilities
from dbos import _workflow_commands as commands
from dbos._dbos import _get_dbos_instance, _get_or_create_dbos_registry
from dbos._schemas.system_database import SystemSchema
from dbos._sys_db import SystemDatabase, WorkflowStatusInternal
from packaging.requirements import Requirement
from psycopg.rows import dict_row

import eventic_core
from eventic_core import Eventic, Record
from eventic_core.records import current_store
from eventic_core.runtime import adapter, functions, process
from eventic_core.runtime.calls import Call
from eventic_core.store.work import SERIALIZATION, Outcome, QueueRow

PACKAGE = Path(eventic_core.__file__).parent
STATEMENTS = sorted(path for path in (PACKAGE / "store/sql").glob("*.sql") if not path.name.startswith("grants_"))
"""All but grants: those name tables only, and a grant of one that is not there fails in `test_grants`."""
QUEUE = QueueRow("contract", 8)
LANES = QueueRow("contract.lanes", 8, lanes=True)


class ContractItem(Record):
    number: int


@Eventic.step(name="contract.step")
def look(number: int) -> int:
    return number


@Eventic.workflow(name="contract.double")
def double(number: int) -> int:
    if number < 0:
        message = f"{number} is negative"
        raise ValueError(message)
    return number * 2


@Eventic.workflow(name="contract.write")
def write(number: int) -> list[Any]:
    first = ContractItem(number=number)
    looked = look(number)
    second = ContractItem(number=looked)
    return [first.id, second.id]


def claim(queue: QueueRow, count: int) -> list[adapter.Claimed]:
    return adapter.Claims(current_store().work).claim(queue, count)


# -- the version


def test_the_installed_version_is_within_the_pin() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    pins = [found for line in project["dependencies"] if (found := Requirement(line)).name == "dbos"]
    assert [pin.specifier.contains(importlib.metadata.version("dbos")) for pin in pins] == [True]


# -- private names

SIGNATURES = [
    (core.execute_dequeued_workflow, ["dbos", "status", "owner_xid"]),
    (commands.delete_completed_datasource_checkpoints, ["dbos", "ctx"]),
    (context.get_local_dbos_context, []),
    (context._set_local_dbos_context, ["ctx"]),
    (context.DBOSContext, []),
    (context.EnterDBOSWorkflow, ["attributes", "ctx"]),
    (core.ActiveWorkflowById.activeList, ["self"]),
    (instance._get_dbos_instance, []),
    (instance._get_or_create_dbos_registry, []),
    (utilities.generate_uuid, []),
    (queues.Queue, ["name", "concurrency", "limiter", "worker_concurrency", "partition_concurrency", "token"]),
    (
        SystemDatabase.start_queued_workflows,
        ["self", "queue", "executor_id", "app_version", "queue_partition_key", "local_running_count", "owner_xid"],
    ),
    (
        SystemDatabase.start_queued_partitioned_workflows,
        ["self", "queue", "executor_id", "app_version", "max_tasks", "owner_xid"],
    ),
    (SystemDatabase.get_workflow_statuses, ["self", "workflow_ids"]),
    (dbos.error.DBOSWorkflowConflictIDError, ["workflow_id"]),
    (SQLAlchemyDatasource.run_tx_step, ["self", "ds_options", "func"]),
    (SQLAlchemyDatasource.sql_session, ["self"]),
    (SQLAlchemyDatasource.create, ["database_url", "engine_kwargs", "serializer"]),
    (DBOS.run_step, ["dbos_step_options", "func"]),
    (DBOS.run_step_async, ["dbos_step_options", "func"]),
    (DBOS.workflow, ["name", "max_recovery_attempts"]),
    (DBOS.listen_queues, ["queues"]),
    (DBOS.migrate, ["system_database_url"]),
    (DBOS.destroy, ["destroy_registry", "workflow_completion_timeout_sec"]),
    (
        DBOSClient,
        [
            *("system_database_url", "serializer", "system_database_pool_size"),
            *("application_name", "lazy", "retry_connection_errors"),
        ],
    ),
    (DBOSClient.update_workflow_attributes, ["self", "workflow_id", "attributes", "merge"]),
    (DBOSClient.cancel_workflow, ["self", "workflow_id"]),
    (DBOSClient.resume_workflow, ["self", "workflow_id", "queue_name"]),
    (
        DBOSClient.fork_workflow,
        ["self", "workflow_id", "start_step", "application_version", "queue_name", "queue_partition_key"],
    ),
]


@pytest.mark.parametrize(("function", "used"), SIGNATURES, ids=[given.__qualname__ for given, _ in SIGNATURES])
def test_a_name_takes_the_arguments_we_give_it(function: Any, used: list[str]) -> None:
    given = list(inspect.signature(function).parameters)
    assert [name for name in given if name in used] == used


def imports(path: Path) -> set[tuple[str, str]]:
    found = re.findall(r"^\s*from (dbos[\w.]*) import (.+)$", path.read_text(), re.MULTILINE)
    return {(module, name.split(" as ")[0].strip()) for module, names in found for name in names.split(",")}


@pytest.mark.parametrize("module", ["adapter", "runs"])
def test_every_name_that_is_imported_exists(module: str) -> None:
    found = imports(PACKAGE / f"runtime/{module}.py")
    assert found
    for source, name in found:
        loaded = importlib.import_module(source)
        assert hasattr(loaded, name) or importlib.import_module(f"{source}.{name}")


def test_only_the_adapter_and_runs_import_dbos() -> None:
    importing = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if imports(path)}
    assert importing == {"runtime/adapter.py", "runtime/runs.py"}


def test_a_context_holds_where_a_run_is() -> None:
    found = context.DBOSContext()
    assert (found.workflow_id, found.function_id, found.curr_step_function_id) == ("", -1, -1)
    assert (found.owner_xid, found.workflow_deadline_epoch_ms, found.id_assigned_for_next_workflow) == (None, None, "")
    assert (found.is_workflow(), found.is_step(), found.used_datasources) == (False, False, [])
    found.id_assigned_for_next_workflow = "run"
    attributes: Any = {"name": "contract", "operationType": "workflow", "queueName": None}
    with context.EnterDBOSWorkflow(attributes, found):
        assert context.get_local_dbos_context() is found
        assert (found.workflow_id, found.function_id, found.is_workflow()) == ("run", 0, True)
        assert found.snapshot_step_ctx().function_id == 1
    assert context.get_local_dbos_context() is None


def test_a_claimed_status_has_the_keys_we_read() -> None:
    keys = {"workflow_uuid", "name", "recovery_attempts", "inputs", "workflow_deadline_epoch_ms", "queue_name"}
    assert keys <= WorkflowStatusInternal.__annotations__.keys()


def test_errors_that_stop_an_execution_are_no_exceptions_of_the_users() -> None:
    for error in (dbos.error.DBOSWorkflowConflictIDError, dbos.error.DBOSWorkflowCancelledError):
        assert issubclass(error, BaseException)
        assert not issubclass(error, Exception)


def test_the_error_for_another_step_says_which_it_was() -> None:
    error = dbos.error.DBOSUnexpectedStepError("run", 3, "now", "then")
    assert error.inputs == ("run", 3, "now", "then")


def test_the_internal_queue_has_its_name() -> None:
    assert utilities.INTERNAL_QUEUE_NAME == adapter.INTERNAL_QUEUE


def test_the_registry_holds_what_we_change_in_it() -> None:
    registry = _get_or_create_dbos_registry()
    assert isinstance(registry.workflow_info_map, dict)
    assert isinstance(registry.datasources, list)
    assert hasattr(registry, "dbos")


# -- tables

TEXT, INTEGER, BIGINT, BOOLEAN, FLOAT = "text", "integer", "bigint", "boolean", "double precision"
REQUIRED, DEFAULTED, OPTIONAL = "not null", "not null default", "null"
COLUMNS = {
    "workflow_status": {
        "workflow_uuid": (TEXT, REQUIRED),
        "status": (TEXT, OPTIONAL),
        "name": (TEXT, OPTIONAL),
        "output": (TEXT, OPTIONAL),
        "error": (TEXT, OPTIONAL),
        "inputs": (TEXT, OPTIONAL),
        "executor_id": (TEXT, OPTIONAL),
        "created_at": (BIGINT, DEFAULTED),
        "updated_at": (BIGINT, DEFAULTED),
        "completed_at": (BIGINT, OPTIONAL),
        "started_at_epoch_ms": (BIGINT, OPTIONAL),
        "delay_until_epoch_ms": (BIGINT, OPTIONAL),
        "workflow_timeout_ms": (BIGINT, OPTIONAL),
        "workflow_deadline_epoch_ms": (BIGINT, OPTIONAL),
        "rate_limited": ("boolean", DEFAULTED),
        "application_version": (TEXT, OPTIONAL),
        "application_name": (TEXT, OPTIONAL),
        "recovery_attempts": (BIGINT, OPTIONAL),
        "queue_name": (TEXT, OPTIONAL),
        "queue_partition_key": (TEXT, OPTIONAL),
        "deduplication_id": (TEXT, OPTIONAL),
        "is_debounced": (BOOLEAN, DEFAULTED),
        "priority": (INTEGER, DEFAULTED),
        "owner_xid": (TEXT, OPTIONAL),
        "serialization": (TEXT, OPTIONAL),
        "forked_from": (TEXT, OPTIONAL),
        "parent_workflow_id": (TEXT, OPTIONAL),
        "attributes": ("jsonb", OPTIONAL),
    },
    "workflow_input": {"workflow_uuid": (TEXT, REQUIRED), "inputs": (TEXT, OPTIONAL)},
    "workflow_output": {
        "workflow_uuid": (TEXT, REQUIRED),
        "output": (TEXT, OPTIONAL),
        "error": (TEXT, OPTIONAL),
    },
    "operation_outputs": {
        "workflow_uuid": (TEXT, REQUIRED),
        "function_id": (INTEGER, REQUIRED),
        "function_name": (TEXT, DEFAULTED),
        "output": (TEXT, OPTIONAL),
        "error": (TEXT, OPTIONAL),
        "child_workflow_id": (TEXT, OPTIONAL),
        "started_at_epoch_ms": (BIGINT, OPTIONAL),
        "completed_at_epoch_ms": (BIGINT, OPTIONAL),
        "serialization": (TEXT, OPTIONAL),
        "application_name": (TEXT, OPTIONAL),
    },
    "workflow_events": {"workflow_uuid": (TEXT, REQUIRED), "value": (TEXT, REQUIRED)},
    "workflow_events_history": {"workflow_uuid": (TEXT, REQUIRED), "value": (TEXT, REQUIRED)},
    "streams": {"workflow_uuid": (TEXT, REQUIRED), "value": (TEXT, REQUIRED)},
    "notifications": {"destination_uuid": (TEXT, REQUIRED), "message": (TEXT, REQUIRED)},
    "application_versions": {"version_name": (TEXT, REQUIRED), "version_timestamp": (BIGINT, DEFAULTED)},
    "dbos_migrations": {"version": (BIGINT, REQUIRED)},
    "queues": {
        "name": (TEXT, REQUIRED),
        "concurrency": (INTEGER, OPTIONAL),
        "worker_concurrency": (INTEGER, OPTIONAL),
        "rate_limit_max": (INTEGER, OPTIONAL),
        "rate_limit_period_sec": (FLOAT, OPTIONAL),
        "partition_queue": (BOOLEAN, DEFAULTED),
        "partition_concurrency": (INTEGER, OPTIONAL),
        "polling_interval_sec": (FLOAT, DEFAULTED),
        "application_name": (TEXT, OPTIONAL),
    },
}
INSERTED = re.compile(r"insert into dbos\.(\w+) \(([^)]+)\)")


def code(path: Path) -> str:
    """A statement without its comments and strings."""
    return re.sub(r"--.*|'[^']*'", "", path.read_text())


@pytest.fixture(scope="module")
def url(server_url: str, template: str) -> Iterator[str]:
    """A database in which this process is launched; it claims no work unless it is told to."""
    with new_database(server_url, template) as found:
        Eventic.init(name="contract", database_url=found)
        Eventic.launch(queues=[])
        for row in (QUEUE, LANES):
            process().ensure_queue(row)
        yield found
        Eventic.shutdown()


def rows(url: str, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def tables(url: str) -> dict[str, dict[str, tuple[str, str]]]:
    found: dict[str, dict[str, tuple[str, str]]] = {}
    sql = "select * from information_schema.columns where table_schema = 'dbos' order by ordinal_position"
    for row in rows(url, sql):
        null = OPTIONAL if row["is_nullable"] == "YES" else (DEFAULTED if row["column_default"] else REQUIRED)
        found.setdefault(row["table_name"], {})[row["column_name"]] = (row["data_type"], null)
    return found


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in COLUMNS.items() for column in columns]
)
def test_a_column_has_the_type_we_give_it(tables: dict[str, Any], table: str, column: str) -> None:
    assert tables[table].get(column) == COLUMNS[table][column]


def test_no_column_is_named_that_is_not_in_the_list(tables: dict[str, Any]) -> None:
    for path in STATEMENTS:
        text = code(path)
        named = set(re.findall(r"\bdbos\.(\w+)", text))
        assert named <= COLUMNS.keys(), path.name
        words = set(re.findall(r"\b(?:s|w|ws|o|i|q)\.(\w+)", text)) | {
            column.strip() for _, columns in INSERTED.findall(text) for column in columns.split(",")
        }
        known = set().union(*(COLUMNS[table] for table in named))
        possible = set().union(*(tables[table] for table in named))
        assert words & possible <= known, path.name


@pytest.mark.parametrize(
    "table", ["workflow_status", "workflow_input", "workflow_output", "operation_outputs", "queues"]
)
def test_our_inserts_supply_every_column_that_has_no_default(tables: dict[str, Any], table: str) -> None:
    required = {column for column, (_, null) in tables[table].items() if null == REQUIRED}
    inserts = [columns for path in STATEMENTS for name, columns in INSERTED.findall(code(path)) if name == table]
    assert inserts
    for columns in inserts:
        assert required <= {column.strip() for column in columns.split(",")}


def cited() -> set[str]:
    """The names of DBOS's indexes in the comments of our statements."""
    comments = "\n".join(line for path in STATEMENTS for line in path.read_text().splitlines() if line.startswith("--"))
    ours = {"dead_letters_pkey", "handled_pkey", "handlers_pkey"}
    names = set(
        re.findall(r"\b(?:idx_\w+|(?:workflow|operation|queues)_\w+(?:_pkey|_key|_index)|queues_name_key)\b", comments)
    )
    return names - ours


@pytest.mark.parametrize("index", sorted(cited()))
def test_an_index_that_our_comments_cite_exists(url: str, index: str) -> None:
    assert rows(url, "select 1 from pg_indexes where schemaname = 'dbos' and indexname = %s", index)


@pytest.mark.parametrize(
    "table", ["workflow_status", "operation_outputs", "workflow_input", "workflow_output", "queues"]
)
def test_the_tables_are_those_of_dbos_itself(tables: dict[str, Any], table: str) -> None:
    described = getattr(SystemSchema, table).c.keys()
    assert set(COLUMNS[table]) <= set(described)


# -- work that is enqueued

WHEN = {"created_at", "updated_at", "completed_at", "started_at_epoch_ms"}
WHO = {"workflow_uuid", "owner_xid"}
_runs = itertools.count(1)


def run_id() -> str:
    return f"run-{next(_runs)}"


def started(known: str) -> Any:
    start = functions.find(known).start
    assert start is not None
    return start


def call(number: int, function: str = "contract.double") -> Call:
    return Call.of(functions.find(function).plain, function, (number,), {})


def ours(number: int = 1, *, key: str | None = None, delay_seconds: float = 0.0) -> str:
    """A run that our statement enqueues."""
    run, name = run_id(), (LANES if key else QUEUE).name.removesuffix(".lanes")
    Eventic.queue(name).enqueue(double, number, key=key, run_id=run, delay_seconds=delay_seconds)
    return run


def theirs(number: int = 1, **options: Any) -> str:
    """A run that DBOS enqueues."""
    run = run_id()
    name = LANES.name if "queue_partition_key" in options else QUEUE.name
    with SetWorkflowID(run), SetEnqueueOptions(**options):
        DBOS.enqueue_workflow(name, started("contract.double"), call(number))
    return run


def state(url: str, run: str) -> dict[str, Any]:
    """All that the tables hold of a run, but for ids and moments."""
    found = dict(rows(url, "select * from dbos.workflow_status where workflow_uuid = %s", run)[0])
    for table in ("workflow_input", "workflow_output"):
        for row in rows(url, f"select * from dbos.{table} where workflow_uuid = %s", run):
            found |= {f"{table}.{key}": value for key, value in row.items()}
    return found


def differences(url: str, one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """What is not the same of two runs: moments only if one has them and the other does not."""
    first, second = state(url, one), state(url, other)
    assert first.keys() == second.keys()

    def same(column: str) -> bool:
        if column.endswith("workflow_uuid"):
            return True
        if column in WHEN | {"owner_xid", "delay_until_epoch_ms"} or column.endswith("retention_timestamp"):
            return (first[column] is None) == (second[column] is None)
        return bool(first[column] == second[column])

    return {column: (first[column], second[column]) for column in first if not same(column)}


NAMED = {
    "application_id": "that of an app in DBOS's cloud: empty elsewhere, and read by nobody",
    "application_name": "any application that has the code may do the work",
    "creator_xid": "tells DBOS whether it was the first to start a run that it names; we ask the row count",
}
"""Columns in which a row of ours is empty and one of DBOS's is not, and why we leave them."""
ENQUEUER = {"executor_id": "DBOS notes who enqueued; the claim overwrites it"}


def unlike(url: str, mine: str, other: str) -> dict[str, tuple[Any, Any]]:
    """What is not the same of a run of ours and one of DBOS's, but for the named differences."""
    found = differences(url, mine, other)
    assert {found.pop(column)[0] for column in NAMED if column in found} <= {None}
    return found


def test_a_row_we_enqueue_is_one_that_dbos_enqueues(url: str) -> None:
    assert unlike(url, ours(), theirs()).keys() <= ENQUEUER.keys()


def test_a_row_in_a_lane_is_one_that_dbos_enqueues(url: str) -> None:
    mine = ours(key="record")
    lane = state(url, mine)["queue_partition_key"]
    assert unlike(url, mine, theirs(queue_partition_key=lane)).keys() <= ENQUEUER.keys()


def test_a_delayed_row_is_one_that_dbos_enqueues(url: str) -> None:
    mine, other = ours(delay_seconds=3600), theirs(delay_seconds=3600)
    assert unlike(url, mine, other).keys() <= ENQUEUER.keys()
    due = [state(url, run)["delay_until_epoch_ms"] for run in (mine, other)]
    assert abs(due[0] - due[1]) < 60_000


def test_a_row_we_enqueue_is_one_that_the_sql_function_of_dbos_enqueues(url: str) -> None:
    other = run_id()
    rows(
        url,
        "select dbos.enqueue_workflow(workflow_name => 'contract.double', queue_name => %s, workflow_id => %s,"
        " app_version => %s)",
        *(QUEUE.name, other, Eventic.settings().app_version),
    )
    found = unlike(url, ours(), other)
    assert found.pop("serialization") == (SERIALIZATION, "portable_json")
    assert found.pop("workflow_input.inputs")[0] == call(1).payload
    assert found.pop("owner_xid")[0] is None  # a claim writes one in any case
    assert found == {}


# -- work that is done


def claimed(run: str) -> adapter.Claimed:
    found = [work for work in claim(QUEUE, 100) if work.run_id == run]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def empty(url: str) -> None:
    rows(
        url, "truncate dbos.workflow_status, dbos.workflow_input, dbos.workflow_output, dbos.operation_outputs cascade"
    )


def ended(url: str, run: str) -> None:
    until(lambda: state(url, run)["status"] not in ("PENDING", "ENQUEUED"))


def test_a_claim_makes_a_run_ours(url: str, empty: None) -> None:
    run = ours()
    work = claimed(run)
    found = state(url, run)
    assert (found["status"], found["owner_xid"], found["recovery_attempts"]) == ("PENDING", work.owner, 1)
    assert (found["executor_id"], work.attempts) == (utilities.GlobalParams.executor_id, 1)
    assert (work.name, work.payload) == ("contract.double", call(1).payload)


@pytest.mark.parametrize(("queue", "key"), [(QUEUE, None), (LANES, "record")])
def test_our_claim_leaves_a_row_as_the_claim_of_dbos_does(url: str, empty: None, queue: Any, key: str | None) -> None:
    mine = ours(key=key)
    assert [work.run_id for work in claim(queue, 10)] == [mine]
    rows(url, "update dbos.workflow_status set queue_partition_key = 'elsewhere' where workflow_uuid = %s", mine)
    other = ours(key=key)
    system, view = _get_dbos_instance()._sys_db, adapter._queue(queue, 10)
    who = utilities.GlobalParams.executor_id, utilities.GlobalParams.app_version
    if key is None:
        found, _stopped_by = system.start_queued_workflows(view, *who, None, owner_xid="theirs")
    else:
        found = system.start_queued_partitioned_workflows(view, *who, 10, owner_xid="theirs")
    assert found == [other]
    assert unlike(url, mine, other).keys() <= {"owner_xid", "queue_partition_key"}


def test_our_claim_turns_a_timeout_into_a_deadline(url: str, empty: None) -> None:
    run = ours()
    rows(url, "update dbos.workflow_status set workflow_timeout_ms = 60000 where workflow_uuid = %s", run)
    work = claimed(run)
    found = state(url, run)
    assert found["workflow_deadline_epoch_ms"] == found["started_at_epoch_ms"] + 60000
    assert work.status["workflow_deadline_epoch_ms"] == found["workflow_deadline_epoch_ms"]


def test_a_claim_takes_one_piece_of_a_lane(url: str, empty: None) -> None:
    one, other = ours(key="record"), ours(key="record")
    assert [work.run_id for work in claim(LANES, 10)] == [one]
    assert claim(LANES, 10) == []
    assert state(url, other)["status"] == "ENQUEUED"


@pytest.mark.parametrize("number", [3, -3])
@pytest.mark.parametrize("many", [False, True])
def test_a_run_we_complete_is_one_that_dbos_completes(url: str, empty: None, number: int, *, many: bool) -> None:
    other = theirs(number)
    adapter.execute(claimed(other))
    ended(url, other)
    theirs_now = state(url, other)
    mine = ours(number)
    work = claimed(mine)
    output, error = theirs_now["workflow_output.output"], theirs_now["workflow_output.error"]
    outcome = Outcome(mine, work.owner, theirs_now["status"], output, error)
    if many:
        current_store().work.complete_many([outcome])
    else:
        assert current_store().work.complete(outcome)
    assert theirs_now["status"] == ("SUCCESS" if number > 0 else "ERROR")
    assert unlike(url, mine, other) == {}


def test_a_run_that_is_not_ours_is_not_completed(url: str, empty: None) -> None:
    run = ours()
    claimed(run)
    before = state(url, run)
    outcome = Outcome(run, "somebody else", "SUCCESS", "1", None)
    assert not current_store().work.complete(outcome)
    current_store().work.complete_many([outcome])
    assert state(url, run) == before


def recovered(url: str, run: str) -> dict[str, Any]:
    """What DBOS makes of a run whose executor is dead."""
    system = _get_dbos_instance()._sys_db
    assert system.reenqueue_for_recovery(run, [utilities.GlobalParams.executor_id], adapter.INTERNAL_QUEUE)
    return state(url, run)


def test_what_we_put_back_is_what_dbos_recovers(url: str, empty: None) -> None:
    mine, other = ours(), theirs()
    owners = {work.run_id: work.owner for work in claim(QUEUE, 10)}
    current_store().work.put_back([(mine, owners[mine])])
    recovered(url, other)
    found = unlike(url, mine, other)
    assert found.pop("executor_id") == (None, utilities.GlobalParams.executor_id)  # nobody's until it is claimed again
    assert found.pop("recovery_attempts") == (0, 1)  # it was no attempt
    assert found == {}


def test_an_attempt_that_is_put_back_is_counted_as_dbos_counts(url: str, empty: None) -> None:
    mine, other = ours(), theirs()
    owners = {work.run_id: work.owner for work in claim(QUEUE, 10)}
    current_store().work.put_back([(mine, owners[mine])], counted=True)
    recovered(url, other)
    assert unlike(url, mine, other).keys() == {"executor_id"}


def test_what_we_take_over_is_what_dbos_recovers(url: str, empty: None) -> None:
    mine, other = ours(), theirs()
    claim(QUEUE, 10)
    rows(url, "update dbos.workflow_status set executor_id = 'dead' where workflow_uuid = %s", mine)
    assert current_store().work.take_over(["dead"]) == [(mine, "dead")]
    recovered(url, other)
    found = unlike(url, mine, other)
    assert found.pop("executor_id") == ("dead", utilities.GlobalParams.executor_id)  # as it was, in both
    assert found == {}


# -- steps


def checkpoints(url: str, run: str) -> list[dict[str, Any]]:
    return rows(url, "select * from dbos.operation_outputs where workflow_uuid = %s order by function_id", run)


def test_our_checkpoint_has_the_columns_that_a_step_of_dbos_has(url: str) -> None:
    run = run_id()
    with Eventic.run_id(run):
        write(5)
    mine, theirs_row, _ = checkpoints(url, run)
    assert (mine["function_name"], theirs_row["function_name"]) == ("write new ContractItem", "contract.step")
    differing = {column for column in mine if (mine[column] is None) != (theirs_row[column] is None)}
    assert differing == set()
    assert mine["serialization"] == theirs_row["serialization"] == SERIALIZATION
    assert mine["application_name"] == theirs_row["application_name"]


def test_dbos_lists_our_checkpoints(url: str) -> None:
    run = run_id()
    with Eventic.run_id(run):
        first, second = write(6)
    found = DBOS.list_workflow_steps(run)
    assert [(step["function_id"], step["function_name"]) for step in found] == [
        (1, "write new ContractItem"),
        (2, "contract.step"),
        (3, "write new ContractItem"),
    ]
    assert [step["output"] for step in found] == [[[first, 0]], 6, [[second, 0]]]
    assert [step["error"] for step in found] == [None, None, None]


def test_our_checkpoints_survive_a_fork(url: str) -> None:
    run = run_id()
    with Eventic.run_id(run):
        first, second = write(7)
    forked = DBOS.fork_workflow(run, 3)
    found = forked.get_result(polling_interval_sec=0.05)
    assert found[0] == first
    assert found[1] != second
    before, after = checkpoints(url, run), checkpoints(url, forked.get_workflow_id())
    assert [row["output"] for row in before[:2]] == [row["output"] for row in after[:2]]
    assert [version.id for version in current_store().written_by(forked.get_workflow_id())] == [found[1]]


def test_the_owner_of_a_run_is_the_token_of_its_context(url: str) -> None:
    seen: list[Any] = []

    @Eventic.workflow(name="contract.position")
    def position() -> None:
        where = adapter.position()
        assert where is not None
        owner = rows(url, "select owner_xid from dbos.workflow_status where workflow_uuid = %s", where.run_id)
        seen.extend([where.owner, owner[0]["owner_xid"], where.next_step(), where.next_step()])

    position()
    assert seen[0] == seen[1]
    assert seen[2:] == [1, 2]


def test_a_context_follows_into_a_thread_that_copies_it(url: str) -> None:
    import contextvars

    seen: list[Any] = []

    @Eventic.workflow(name="contract.threads")
    def threads() -> None:
        copied = contextvars.copy_context()
        for target in (adapter.position, lambda: copied.run(adapter.position)):
            thread = threading.Thread(target=lambda target=target: seen.append(target()))  # type: ignore[misc]
            thread.start()
            thread.join()

    threads()
    assert (seen[0], seen[1] is not None) == (None, True)


def test_a_claim_whose_reply_was_lost_is_found_by_the_next(url: str, empty: None) -> None:
    run, work = ours(), current_store().work
    work.claim(QUEUE, 10, owner="lost", executor=utilities.GlobalParams.executor_id)
    claims = adapter.Claims(work)
    claims.doubtful[QUEUE.name] = "lost"
    assert [(found.run_id, found.owner) for found in claims.claim(QUEUE, 10)] == [(run, "lost")]
    assert claims.claim(QUEUE, 10) == []
    assert claims.doubtful == {}


def test_a_claim_that_meets_another_worker_at_the_queue_finds_nothing_for_now(url: str, empty: None) -> None:
    run, claims = ours(), adapter.Claims(current_store().work)
    limited = QUEUE._replace(limit=3)
    with psycopg.connect(url) as other:
        other.execute("select 1 from dbos.workflow_status where workflow_uuid = %s for update", [run])
        assert claims.claim(limited, 10) == []
    assert claims.doubtful == {}
    assert [found.run_id for found in claims.claim(limited, 10)] == [run]
