"""`eventic run` and `eventic queue`: what they print where, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from conftest import execute, new_database

from eventic_core import Eventic, Record
from eventic_core.cli import main
from eventic_core.records import running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("bare_environment")

MOMENT = "2026-01-02T03:04:05.678+00:00"
MOMENT_MS = 1767323045678
ROWS = f"""
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, application_name, application_version,
                                  executor_id, recovery_attempts, created_at, started_at_epoch_ms, completed_at,
                                  serialization, attributes)
values ('done', 'SUCCESS', 'order', 'parcels', 'shop', '7', 'worker-1', 1, {MOMENT_MS}, {MOMENT_MS + 1},
        {MOMENT_MS + 1234}, 'eventic_json', null),
       ('failed', 'ERROR', 'order', null, 'shop', '7', 'worker-1', 1, {MOMENT_MS - 1000}, null, {MOMENT_MS},
        'eventic_json', 'null'),
       ('ready', 'ENQUEUED', 'order', 'parcels', 'shop', '7', null, 0, {MOMENT_MS - 2000}, null, null,
        'eventic_json', '{{"eventic.waiting_for": "handler notify"}}');
insert into dbos.workflow_input (workflow_uuid, inputs)
values ('done', '{{"$":"call","v":{{"target":"shop:ship","args":[{{"$":"decimal","v":"1.5"}}],"kwargs":{{}}}}}}'),
       ('failed', '{{"args":[],"kwargs":{{"card":{{"$":"model","t":"shop:Card","v":{{}}}}}}}}');
insert into dbos.workflow_output (workflow_uuid, output, error)
values ('done', '{{"paid":3}}', null),
       ('failed', null, '{{"$":"error","t":"builtins:ValueError","m":"no\\n\\u001b[2Jway",'
                        '"v":{{"args":["no\\n\\u001b[2Jway"],"state":{{}}}}}}');
insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
                                    started_at_epoch_ms, completed_at_epoch_ms, serialization)
values ('done', 1, 'price', '6', null, null, {MOMENT_MS}, {MOMENT_MS + 250}, 'eventic_json'),
       ('done', 2, 'ship', null, null, 'done-2', {MOMENT_MS + 250}, {MOMENT_MS + 500}, 'eventic_json'),
       ('failed', 1, 'pay', null, '{{"$":"error","t":"builtins:KeyError","m":"x","v":{{"args":["x"],"state":{{}}}}}}',
        null, {MOMENT_MS}, {MOMENT_MS + 1}, 'eventic_json');
insert into dbos.queues (name, worker_concurrency, created_at, updated_at) values ('parcels', 4, 0, 0);
"""


class Parcel(Record, class_type="CliParcel"):
    weight: int


@pytest.fixture(scope="module")
def made(server_url: str, prepared: str) -> Iterator[str]:
    """A database with runs, as DBOS keeps them."""
    with new_database(server_url, prepared) as found:
        execute(found, ROWS)
        yield found


@pytest.fixture
def url(server_url: str, made: str) -> Iterator[str]:
    """A database of the test's own with those runs."""
    with new_database(server_url, made) as found:
        yield found


@pytest.fixture
def shown(made: str) -> str:
    """The database with those runs itself, for tests that only look."""
    return made


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--database-url", url], prog_name="eventic")


def lines(url: str, *arguments: str) -> list[str]:
    result = run(url, *arguments)
    assert (result.exit_code, result.stderr, result.exception) == (0, "", None)
    return result.stdout.splitlines()


def objects(url: str, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in lines(url, *arguments, "--json")]


def test_runs_are_listed_in_columns_newest_first(shown: str) -> None:
    header, *rows = lines(shown, "run", "list")
    assert header.split() == [
        "id",
        "status",
        "name",
        "queue",
        "created_at",
        "started_at",
        "completed_at",
        "waiting_for",
    ]
    assert [row.split()[0] for row in rows] == ["done", "failed", "ready"]
    started, ended = MOMENT.replace("678", "679"), MOMENT.replace("05.678", "06.912")
    assert rows[0].split() == ["done", "SUCCESS", "order", "parcels", MOMENT, started, ended, "-"]
    assert rows[2].endswith("handler notify")


def test_runs_are_listed_as_json_lines(shown: str) -> None:
    done, failed, ready = objects(shown, "run", "list")
    assert (done["id"], done["attempts"], done["application"], failed["queue"]) == ("done", 1, "shop", None)
    assert (ready["status"], ready["waiting_for"], ready["created_at"]) == (
        "ENQUEUED",
        "handler notify",
        "2026-01-02T03:04:03.678000Z",
    )
    assert "arguments" not in done


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "error"], ["failed"]),
        (["--queue", "parcels"], ["done", "ready"]),
        (["--name", "order", "--before", "done"], ["failed", "ready"]),
    ],
)
def test_a_list_is_filtered(shown: str, options: list[str], expected: list[str]) -> None:
    assert [found["id"] for found in objects(shown, "run", "list", *options)] == expected


def test_a_full_page_says_how_to_get_the_next(shown: str) -> None:
    result = run(shown, "run", "list", "--limit", "2")
    assert (len(result.stdout.splitlines()), result.stderr) == (3, "There are more: --before failed\n")
    assert run(shown, "run", "list", "--limit", "3").stderr == ""


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_an_empty_list_says_so_and_succeeds(shown: str, migrated_url: str, as_json: list[str]) -> None:
    for database, arguments, message in (
        (shown, ["run", "list", "--name", "nothing"], "No runs.\n"),
        (shown, ["run", "steps", "ready"], "Run ready has recorded no step and written no record.\n"),
        (migrated_url, ["run", "list"], "No runs.\n"),
        (migrated_url, ["queue", "list"], "No queues.\n"),
    ):
        result = run(database, *arguments, *as_json)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", message)


def test_a_run_is_printed_with_its_arguments_and_result(shown: str) -> None:
    printed = dict(line.split(None, 1) for line in lines(shown, "run", "get", "done"))
    assert printed["arguments"] == '{"target":"shop:ship","args":["1.5"],"kwargs":{}}'
    assert (printed["result"], printed["error"], printed["queue"]) == ('{"paid":3}', "-", "parcels")
    (as_json,) = objects(shown, "run", "get", "done")
    assert (as_json["result"], as_json["arguments"]["args"], as_json["error"]) == ({"paid": 3}, ["1.5"], None)
    assert as_json.keys() == printed.keys()


def test_an_error_is_one_line_that_no_terminal_obeys(shown: str) -> None:
    printed = dict(line.split(None, 1) for line in lines(shown, "run", "get", "failed"))
    assert printed["error"] == r"builtins:ValueError: no\n\x1b[2Jway"
    assert printed["arguments"].startswith('{"args":[],"kwargs":{"card":{"$":"model","t":"shop:Card"')
    (as_json,) = objects(shown, "run", "get", "failed")
    assert as_json["error"] == {"type": "builtins:ValueError", "message": "no\n\x1b[2Jway"}


def test_steps_are_listed_with_the_versions_they_wrote(url: str) -> None:
    Eventic.init(name="tests", database_url=url)
    with running(workflow_id="done", step_id=1):
        parcel = Parcel(weight=1)
        parcel.weight = 2
    Eventic.shutdown()
    header, *rows = [line.split() for line in lines(url, "run", "steps", "done")]
    assert header == ["number", "name", "seconds", "class", "id", "version", "child_id", "error"]
    assert rows == [
        ["1", "price", "0.250", "CliParcel", str(parcel.id), "0", "-", "-"],
        ["1", "price", "0.250", "CliParcel", str(parcel.id), "1", "-", "-"],
        ["2", "ship", "0.250", "-", "-", "-", "done-2", "-"],
    ]
    price, ship = objects(url, "run", "steps", "done")
    assert (price["output"], price["error"]) == (6, None)
    assert price["versions"][1] == {"class_type": "CliParcel", "id": str(parcel.id), "version": 1}
    assert (ship["child_id"], ship["versions"]) == ("done-2", [])
    assert lines(url, "run", "steps", "failed")[1].endswith("builtins:KeyError: 'x'")


def test_runs_are_cancelled_and_resumed(url: str) -> None:
    assert lines(url, "run", "cancel", "ready") == ["ready  CANCELLED"]
    assert lines(url, "run", "cancel", "ready") == ["ready  CANCELLED"]
    assert lines(url, "run", "resume", "ready") == ["ready  ENQUEUED"]
    (found,) = objects(url, "run", "list", "--status", "ENQUEUED")
    assert (found["id"], found["queue"]) == ("ready", "parcels")


def test_what_cannot_be_steered_is_reported_and_the_rest_is_done(url: str) -> None:
    result = run(url, "run", "cancel", "done", "ready", "none")
    assert (result.exit_code, result.stdout) == (1, "ready  CANCELLED\n")
    done, none = result.stderr.splitlines()
    assert done.startswith("Error: Run done cannot be cancelled: it is SUCCESS.")
    assert done.endswith("[conflict]")
    assert none.startswith("Error: There is no run 'none'")
    assert none.endswith("[run_not_found]")


def test_a_fork_prints_the_new_id_alone(url: str) -> None:
    (forked,) = lines(url, "run", "fork", "done", "--step", "2", "--app-version", "8")
    assert UUID(forked)
    (found,) = objects(url, "run", "get", forked)
    assert (found["forked_from"], found["app_version"], found["queue"]) == ("done", "8", "parcels")
    assert [step["name"] for step in objects(url, "run", "steps", forked)] == ["price"]


def test_queues_are_listed_with_what_blocks_them(shown: str) -> None:
    header, row = lines(shown, "queue", "list")
    assert header.split() == ["name", "waiting", "delayed", "running", "oldest_seconds", "concurrency", "blocked"]
    cells = row.split(None, 6)
    assert [*cells[:4], *cells[5:]] == ["parcels", "1", "0", "0", "4", "1 waits for handler notify"]
    assert float(cells[4]) > 0
    (found,) = objects(shown, "queue", "list")
    assert (found["waiting"], found["blocked"]) == (1, ["1 waits for handler notify"])


@pytest.mark.parametrize("command", [["get"], ["steps"], ["cancel"], ["resume"], ["fork"], ["list", "--before"]])
def test_an_unknown_run_ends_with_1(shown: str, command: list[str]) -> None:
    result = run(shown, "run", *command, "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("[run_not_found]\n")


@pytest.mark.parametrize(
    "arguments",
    [["list", "--status", "x"], ["list", "--limit", "0"], ["get"], ["cancel"], ["fork", "x", "--step", "0"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert run("postgresql://me@127.0.0.1:1/db", "run", *arguments).exit_code == 2


def test_looking_changes_no_tables(database_url: str) -> None:
    result = run(database_url, "run", "list")
    assert result.exit_code == 3
    assert "`eventic migrate`" in result.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select to_regnamespace('eventic')").fetchone() == (None,)


def test_looking_loads_no_dbos(shown: str) -> None:
    code = textwrap.dedent("""
        import sys
        from eventic_core.cli import main
        for command in (["run", "list"], ["run", "get", "done"], ["run", "steps", "done"], ["queue", "list"]):
            main([*command, "--database-url", sys.argv[1]], standalone_mode=False)
        assert "dbos" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", code, shown], check=True, capture_output=True)
