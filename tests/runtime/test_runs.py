"""Runs: what is listed of them, what they were given and did, and how they are cancelled, resumed and forked."""

from __future__ import annotations

import asyncio
import base64
import itertools
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from conftest import execute, new_database

from eventic_core import Eventic, Record
from eventic_core.errors import BlockingInLoop, Conflict, Invalid, InvalidFilter, RemoteError, RunNotFound
from eventic_core.records import running
from eventic_core.runtime import runs
from eventic_core.store import runs as stored

if TYPE_CHECKING:
    from collections.abc import Iterator

# What an application would do, with nothing but DBOS and our serializer. Queues are served only when it is to work.
PROGRAM = """
import sys
from datetime import date
from decimal import Decimal

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from eventic_core.runtime.adapter import JsonSerializer
from eventic_core.runtime.calls import Call

url, *awaited = sys.argv[1:]
DBOS(
    config={
        "name": "shop",
        "system_database_url": url,
        "application_version": "7",
        "executor_id": "worker-1",
        "serializer": JsonSerializer(),
        "log_level": "ERROR",
        "run_migrations": True,
    }
)


class OutOfStock(Exception):
    pass


@DBOS.step(name="price")
def price(amount):
    return Decimal(amount) * 2


@DBOS.step(name="pay")
def pay(amount):
    if amount > 10:
        raise KeyError(amount)
    if amount < 0:
        raise OutOfStock("none left")
    return amount


@DBOS.workflow(name="order")
def order(amount, **options):
    price(amount)
    return {"paid": pay(amount), "at": options.get("at")}


@DBOS.workflow(name="call")
def call(call):
    return "called"


def start(run_id, function, *args, **kwargs):
    with SetWorkflowID(run_id):
        try:
            function(*args, **kwargs)
        except Exception:
            pass


if not awaited:
    DBOS.listen_queues([])
DBOS.launch()
if awaited:
    for run_id in awaited:
        DBOS.retrieve_workflow(run_id).get_result(polling_interval_sec=0.1)
else:
    start("paid", order, 3, at=date(2026, 1, 2))
    start("refused", order, 30)
    start("empty", order, -1)
    work = Call.of(None, "ship", (date(2026, 1, 2), "x"), {"fast": Decimal("1.5")}, target="shop:ship")
    start("called", call, work)
    DBOS.register_queue("parcels", partition_concurrency=1, worker_concurrency=4, polling_interval_sec=0.1)
    with SetEnqueueOptions(queue_partition_key="lane 5"):
        start("waiting", lambda: DBOS.enqueue_workflow("parcels", order, 4))
    with SetEnqueueOptions(queue_partition_key="lane 5", delay_seconds=3600):
        start("delayed", lambda: DBOS.enqueue_workflow("parcels", order, 5))
    start("lost", lambda: DBOS.enqueue_workflow("nowhere", order, 6))
DBOS.destroy()
"""
MADE = ["lost", "delayed", "waiting", "called", "empty", "refused", "paid"]


class Order(Record, class_type="RunsOrder"):
    amount: int


def run_program(url: str, *awaited: str) -> None:
    command = [sys.executable, "-c", PROGRAM, url, *awaited]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(server_url: str, template: str) -> Iterator[str]:
    """A database in which the program made its runs."""
    with new_database(server_url, template) as found:
        run_program(found)
        yield found


@pytest.fixture
def url(server_url: str, made: str) -> Iterator[str]:
    """A database of the test's own with those runs, connected."""
    with new_database(server_url, made) as found:
        Eventic.init(name="tests", database_url=found)
        yield found
        Eventic.shutdown()


@pytest.fixture
def shown(made: str) -> Iterator[str]:
    """The database with those runs itself, connected, for tests that only look."""
    Eventic.init(name="tests", database_url=made)
    yield made
    Eventic.shutdown()


def row(url: str, run_id: str, *columns: str) -> tuple[Any, ...]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"select {', '.join(columns)} from dbos.workflow_status where workflow_uuid = %s", [run_id]
        ).fetchone()
    assert found is not None
    return found


# Looking


def test_runs_are_listed_newest_first_without_payloads(shown: str) -> None:
    found = runs.list_runs()
    assert [run.id for run in found] == MADE
    assert all((run.arguments, run.result, run.error) == (None, None, None) for run in found)
    assert [run.created_at for run in found] == sorted((run.created_at for run in found), reverse=True)
    assert {run.created_at.tzinfo for run in found} == {UTC}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": "ERROR"}, ["empty", "refused"]),
        ({"queue": "parcels"}, ["delayed", "waiting"]),
        ({"name": "call"}, ["called"]),
        ({"prefix": "wait"}, ["waiting"]),
        ({"prefix": "wait%"}, []),
        ({"queue": "parcels", "status": "DELAYED"}, ["delayed"]),
        ({"limit": 2}, MADE[:2]),
        ({"limit": 2, "before": "delayed"}, MADE[2:4]),
        ({"name": "order", "before": "waiting"}, ["empty", "refused", "paid"]),
        ({"before": "paid"}, []),
    ],
)
def test_runs_are_filtered_and_paged(shown: str, filters: dict[str, Any], expected: list[str]) -> None:
    assert [run.id for run in runs.list_runs(**filters)] == expected


def test_pages_neither_skip_nor_repeat_runs_of_one_millisecond(url: str) -> None:
    execute(url, "update dbos.workflow_status set created_at = 1000")
    seen: list[str] = []
    while page := runs.list_runs(limit=2, before=seen[-1] if seen else None):
        seen += [run.id for run in page]
    assert sorted(seen) == sorted(MADE)


@pytest.mark.parametrize(
    ("filters", "error"),
    [({"status": "success"}, InvalidFilter), ({"limit": 0}, InvalidFilter), ({"before": "none"}, RunNotFound)],
)
def test_a_list_refuses_what_makes_no_sense(shown: str, filters: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        runs.list_runs(**filters)


def test_lists_and_queues_read_by_index(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, created_at, updated_at)"
            " select n::text, 'SUCCESS', 'order', 'parcels', n, n from generate_series(1, 20000) n"
        )
        connection.execute("analyze dbos.workflow_status")
        page = connection.execute(
            "explain " + stored._list(frozenset({"before_ms", "limit"})),
            {"before_ms": 10_000, "before_id": "10000", "limit": 20},
        )
        plans = [page.fetchall(), connection.execute("explain " + stored._QUEUES).fetchall()]
        plans.append(connection.execute("explain " + stored._WAITS).fetchall())
    assert "workflow_status_created_at_index" in str(plans[0])
    assert "idx_workflow_status_in_flight" in str(plans[1])
    assert [plan for plan in plans if "Seq Scan on workflow_status" in str(plan)] == []


def test_a_run_is_read_with_its_arguments_and_result(shown: str) -> None:
    run = runs.get_run("paid")
    assert (run.name, run.status, run.queue, run.application, run.app_version) == (
        "order",
        "SUCCESS",
        None,
        "shop",
        "7",
    )
    assert (run.executor, run.attempts, run.error, run.parent_id) == ("worker-1", 1, None, None)
    day = datetime(2026, 1, 2, tzinfo=UTC).date()
    assert run.arguments == {"args": (3,), "kwargs": {"at": day}}
    assert run.result == {"paid": 3, "at": day}
    assert run.completed_at is not None
    assert timedelta() <= run.completed_at - run.created_at < timedelta(minutes=1)
    waiting = runs.get_run("waiting")
    assert (waiting.status, waiting.queue, waiting.lane) == ("ENQUEUED", "parcels", "lane 5")
    assert (waiting.started_at, waiting.completed_at, waiting.result) == (None, None, None)


def test_an_error_comes_back_as_its_class_or_says_which_it_was(shown: str) -> None:
    error = runs.get_run("refused").error
    assert isinstance(error, KeyError)
    assert error.args == (30,)
    unknown = runs.get_run("empty").error
    assert isinstance(unknown, RemoteError)
    assert "OutOfStock" in unknown.type_name
    assert str(unknown) == "none left"


def test_the_arguments_of_our_own_work_are_decoded(shown: str) -> None:
    arguments = runs.get_run("called").arguments
    assert arguments["target"] == "shop:ship"
    assert arguments["args"] == [datetime(2026, 1, 2, tzinfo=UTC).date(), "x"]
    assert str(arguments["kwargs"]["fast"]) == "1.5"


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_a_pickle_is_shown_as_text_and_never_loaded(url: str, tmp_path: Path) -> None:
    text = base64.b64encode(pickle.dumps(Touch(str(tmp_path / "loaded")))).decode()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("update dbos.workflow_status set serialization = 'py_pickle'")
        connection.execute("update dbos.workflow_input set inputs = %s", [text])
        connection.execute("update dbos.workflow_output set output = %s, error = %s", [text, text])
        connection.execute(
            "update dbos.operation_outputs set serialization = 'py_pickle', output = %s, error = %s", [text, text]
        )
    run = runs.get_run("refused")
    assert (run.arguments, run.result, str(run.error)) == (text, text, text)
    assert isinstance(run.error, RemoteError)
    assert run.error.type_name == "py_pickle"
    assert {(step.output, str(step.error)) for step in runs.steps("refused")} == {(text, text)}
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_decoded_is_shown_as_text(url: str) -> None:
    texts = ('{"$":"model","t":"nowhere:Nothing","v":{}}', "{", '{"$":"call","v":[]}', "gASV")
    with psycopg.connect(url, autocommit=True) as connection:
        for form, text in itertools.product(("eventic_json", "portable_json", None), texts):
            connection.execute("update dbos.workflow_status set serialization = %s", [form])
            connection.execute("update dbos.workflow_input set inputs = %s", [text])
            connection.execute("update dbos.workflow_output set output = %s, error = %s", [text, text])
            run = runs.get_run("paid")
            assert (run.arguments, run.result, str(run.error)) == (text, text, text)


def test_steps_come_in_order_with_what_they_returned_or_raised(shown: str) -> None:
    price, pay = runs.steps("refused")
    assert [(step.number, step.name) for step in (price, pay)] == [(1, "price"), (2, "pay")]
    assert (str(price.output), price.error, pay.output) == ("60", None, None)
    assert isinstance(pay.error, KeyError)
    assert price.started_at is not None
    assert price.completed_at is not None
    assert price.started_at <= price.completed_at
    assert runs.steps("waiting") == []


def test_each_step_names_the_versions_it_wrote(url: str) -> None:
    with running(workflow_id="paid", step_id=1):
        first = Order(amount=1)
        second = Order(amount=2)
        first.amount = 3
    with running(workflow_id="paid", step_id=0):
        third = Order(amount=4)
    with running(workflow_id="paid", step_id=9):
        third.amount = 5
    found = {step.number: step for step in runs.steps("paid")}
    assert list(found) == [0, 1, 2, 9]
    assert [(v.id, v.version) for v in found[1].versions] == [(first.id, 0), (second.id, 0), (first.id, 1)]
    assert {v.class_type for v in found[1].versions} == {"RunsOrder"}
    assert found[2].versions == ()
    assert (found[0].name, [v.id for v in found[0].versions]) == ("whole run", [third.id])
    assert (found[9].name, found[9].started_at, len(found[9].versions)) == ("not recorded", None, 1)


def test_queues_say_what_waits_and_why(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into dbos.workflow_status (workflow_uuid, status, queue_name, attributes, delay_until_epoch_ms)"
            " select 'parked ' || n, case when n < 3 then 'ENQUEUED' else 'DELAYED' end, 'parcels',"
            ' \'{"eventic.waiting_for": "handler notify"}\', 0 from generate_series(1, 12) n'
        )
        connection.execute(
            "insert into dbos.workflow_status (workflow_uuid, status, queue_name, attributes) values"
            " ('x', 'PENDING', 'parcels', '{\"eventic.waiting_for\": \"handler notify\"}'),"
            " ('y', 'ENQUEUED', 'parcels', '{\"eventic.waiting_for\": \"class Page\"}'),"
            " ('z', 'ENQUEUED', '_dbos_internal_queue', 'null')"
        )
        connection.execute(
            "update dbos.workflow_status set created_at = created_at - 60000 where workflow_uuid = 'waiting'"
        )
    internal, nowhere, parcels = runs.queues()
    assert (internal.name, internal.waiting, internal.blocked) == ("_dbos_internal_queue", 1, ())
    assert (nowhere.name, nowhere.blocked) == ("nowhere", ("no worker serves it: it is not registered",))
    assert (parcels.waiting, parcels.delayed, parcels.running, parcels.concurrency) == (4, 11, 1, 4)
    assert parcels.blocked == ("12 wait for handler notify", "1 waits for class Page")
    assert parcels.oldest_seconds is not None
    assert 60 <= parcels.oldest_seconds < 600


def test_a_run_that_was_delayed_waits_since_it_was_due(url: str) -> None:
    execute(
        url,
        "delete from dbos.workflow_status where workflow_uuid = 'waiting'",
        "update dbos.workflow_status set status = 'ENQUEUED', created_at = 0,"
        " delay_until_epoch_ms = extract(epoch from now()) * 1000 - 5000 where workflow_uuid = 'delayed'",
    )
    parcels = runs.queues()[-1]
    assert parcels.oldest_seconds is not None
    assert 5 <= parcels.oldest_seconds < 300


def test_without_the_tables_of_dbos_there_are_no_runs(eventic: str) -> None:
    assert (runs.list_runs(), runs.queues()) == ([], [])
    with pytest.raises(RunNotFound, match="no run 'x'"):
        runs.get_run("x")


@pytest.mark.parametrize("call", [runs.get_run, runs.steps, runs.cancel, runs.resume, runs.fork])
def test_an_unknown_id_is_refused(shown: str, call: Any) -> None:
    with pytest.raises(RunNotFound, match="no run 'none'"):
        call("none")


def test_calls_refuse_to_block_an_event_loop(shown: str) -> None:
    async def look() -> None:
        runs.list_runs()

    with pytest.raises(BlockingInLoop, match=r"asyncio\.to_thread"):
        asyncio.run(look())


def test_looking_loads_no_dbos(shown: str) -> None:
    code = (
        "import sys; from eventic_core import Eventic; from eventic_core.runtime import runs\n"
        "Eventic.init(name='tests', database_url=sys.argv[1], auto_migrate=False)\n"
        "runs.get_run('called'), runs.steps('paid'), runs.queues(), Eventic.shutdown()\n"
        "assert 'dbos' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, shown], check=True, capture_output=True)


# Steering


def test_a_waiting_run_is_cancelled_and_its_queue_remembered(url: str) -> None:
    assert runs.cancel("waiting") == "CANCELLED"
    assert runs.cancel("waiting") == "CANCELLED"
    assert row(url, "waiting", "status", "queue_name") == ("CANCELLED", None)
    assert (runs.get_run("waiting").queue, runs.get_run("waiting").lane) == ("parcels", "lane 5")
    assert [run.id for run in runs.list_runs(queue="parcels", status="CANCELLED")] == ["waiting"]
    assert runs.queues()[-1].waiting == 0


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
def test_a_run_that_has_ended_is_not_cancelled(url: str, status: str) -> None:
    execute(url, f"update dbos.workflow_status set status = '{status}'")
    before = row(url, "paid", "*")
    with pytest.raises(Conflict, match=f"paid cannot be cancelled: it is {status}"):
        runs.cancel("paid")
    assert row(url, "paid", "*") == before


@pytest.mark.parametrize("run_id", ["waiting", "delayed"])
def test_a_cancelled_run_is_resumed_in_its_queue(url: str, run_id: str) -> None:
    runs.cancel(run_id)
    assert runs.resume(run_id) == "ENQUEUED"
    columns = ("status", "queue_name", "queue_partition_key", "completed_at")
    assert row(url, run_id, *columns) == ("ENQUEUED", "parcels", "lane 5", None)


def test_a_delayed_run_is_due_at_once_and_a_waiting_one_stays_as_it_is(url: str) -> None:
    assert runs.resume("delayed") == "ENQUEUED"
    before = row(url, "waiting", "*")
    assert runs.resume("waiting") == "ENQUEUED"
    assert row(url, "waiting", "*") == before


def test_a_run_that_was_given_up_is_resumed(url: str) -> None:
    execute(url, "update dbos.workflow_status set status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', recovery_attempts = 101")
    assert runs.resume("paid") == "ENQUEUED"
    assert runs.get_run("paid").attempts == 0


@pytest.mark.parametrize(("status", "remedy"), [("SUCCESS", "fork"), ("ERROR", "fork"), ("PENDING", "cancel the run")])
def test_a_run_that_ended_or_is_at_work_is_not_resumed(url: str, status: str, remedy: str) -> None:
    execute(url, f"update dbos.workflow_status set status = '{status}'")
    with pytest.raises(Conflict, match=f"it is {status}.*{remedy}"):
        runs.resume("paid")
    assert runs.get_run("paid").status == status


def test_a_fork_waits_where_its_run_did_and_keeps_the_steps_before(url: str) -> None:
    forked = runs.fork("refused", step=2, app_version="8")
    run = runs.get_run(forked)
    assert (run.status, run.forked_from, run.app_version, run.application) == ("ENQUEUED", "refused", "8", "shop")
    assert run.arguments == {"args": (30,), "kwargs": {}}
    assert [(step.number, str(step.output)) for step in runs.steps(forked)] == [(1, "60")]
    assert runs.get_run("refused").status == "ERROR"
    again = runs.get_run(runs.fork("waiting"))
    assert (again.queue, again.lane, again.app_version) == ("parcels", "lane 5", None)
    runs.cancel("waiting")
    assert runs.get_run(runs.fork("waiting")).queue == "parcels"


@pytest.mark.parametrize("event", ["insert", "update"])
def test_a_fork_whose_connection_is_lost_is_made_once(url: str, event: str) -> None:
    execute(
        url,
        "create sequence lost",
        "create function lose() returns trigger language plpgsql as $$ begin"
        " if nextval('lost') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$",
        f"create trigger lose before {event} on dbos.workflow_status for each row execute function lose()",
    )
    forked = runs.fork("paid")
    assert [run.id for run in runs.list_runs() if run.forked_from] == [forked]
    assert runs.cancel(forked) == "CANCELLED"


def test_a_fork_of_nobodys_run_stays_nobodys(url: str) -> None:
    execute(url, "update dbos.workflow_status set application_name = null")
    assert runs.get_run(runs.fork("paid")).application is None


def test_a_fork_begins_at_a_step_that_was_reached(url: str) -> None:
    assert [step.number for step in runs.steps(runs.fork("refused", step=3))] == [1, 2]
    with pytest.raises(RunNotFound, match=r"no step 4: it recorded 2\. Fork it from step 3 at most"):
        runs.fork("refused", step=4)
    with pytest.raises(Invalid, match="step=0"):
        runs.fork("refused", step=0)
    with pytest.raises(RunNotFound, match="no step 2: it recorded 0"):
        runs.fork("waiting", step=2)
    assert len(runs.list_runs(limit=100)) == len(MADE) + 1


def test_a_worker_ends_what_was_resumed_and_forked(url: str) -> None:
    runs.cancel("waiting")
    runs.resume("waiting")
    forked = [runs.fork("paid", step=2), runs.fork("waiting"), runs.fork("called")]
    run_program(url, "waiting", *forked)
    assert {run_id: runs.get_run(run_id).status for run_id in ("waiting", *forked)} == dict.fromkeys(
        ("waiting", *forked), "SUCCESS"
    )
    assert runs.get_run(forked[0]).result == runs.get_run("paid").result
    assert runs.get_run("waiting").result == {"paid": 4, "at": None}
