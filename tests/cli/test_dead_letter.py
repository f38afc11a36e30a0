"""`eventic dead-letter` and `eventic handler`: what they print where, what they change, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from conftest import execute, new_database, rows

from eventic_core.cli import main
from eventic_core.store.work import lane_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("bare_environment")

FIRST, SECOND, THIRD, RECORD = (UUID(int=number) for number in (1, 2, 3, 9))
ERROR = '{"$":"error","t":"builtins:KeyError","m":"\'x\'","v":{"args":["x"],"state":{}}}'
STRANGE = '{"$":"error","t":"shop:OutOfStock","m":"none left","v":{"args":["none left"],"state":{}}}'
MOMENT = "2026-01-02T03:04:05.678+00:00"
ROWS = f"""
insert into eventic.dead_letters (id, handler, class_type, record_id, version, attempts, error, failed_at, state,
                                  settled_at, settled_by)
values ('{FIRST}', 'notify', 'CliParcel', '{RECORD}', 3, 5, $json${ERROR}$json$, '{MOMENT}', 'open', null, null),
       ('{SECOND}', 'count', 'CliParcel', '{RECORD}', 4, 5, $json${STRANGE}$json$,
        '{MOMENT}'::timestamptz - interval '1 day', 'open', null, null),
       ('{THIRD}', 'notify', 'CliParcel', '{RECORD}', 1, 2, $json${ERROR}$json$,
        '{MOMENT}'::timestamptz - interval '2 days', 'discarded', '{MOMENT}', 'ada');
insert into eventic.handlers (name, class_type, kind, method, since_xid, caught_up)
values ('notify', 'CliParcel', 'create', '', '7', true), ('notify', 'CliParcel', 'call', 'publish', '0', false),
       ('count', 'CliParcel', 'update', '', '9', true);
"""


@pytest.fixture(scope="module")
def made(server_url: str, prepared: str) -> Iterator[str]:
    """A database with dead letters and handlers."""
    with new_database(server_url, prepared) as found:
        execute(found, ROWS)
        yield found


@pytest.fixture
def url(server_url: str, made: str) -> Iterator[str]:
    """A database of the test's own with those."""
    with new_database(server_url, made) as found:
        yield found


@pytest.fixture
def shown(made: str) -> str:
    """The database itself, for tests that only look."""
    return made


def run(url: str, *arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, [*arguments, "--database-url", url], prog_name="eventic", **options)


def lines(url: str, *arguments: str) -> list[str]:
    result = run(url, *arguments)
    assert (result.exit_code, result.stderr, result.exception) == (0, "", None)
    return result.stdout.splitlines()


def objects(url: str, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in lines(url, *arguments, "--json")]


def states(url: str) -> dict[UUID, str]:
    return dict(rows(url, "select id, state from eventic.dead_letters"))  # type: ignore[arg-type]


def test_open_letters_are_listed_newest_first_with_their_errors(shown: str) -> None:
    header, first, second = lines(shown, "dead-letter", "list")
    names = ["id", "state", "handler", "class", "record", "version", "attempts", "failed_at", "settled_by", "error"]
    assert header.split() == names
    expected = [str(FIRST), "open", "notify", "CliParcel", str(RECORD), "3", "5", MOMENT, "-"]
    assert first.split(None, 9) == [*expected, "builtins:KeyError: 'x'"]
    assert second.split(None, 9)[0] == str(SECOND)
    assert second.endswith("shop:OutOfStock: none left")


def test_letters_are_listed_as_json_lines(shown: str) -> None:
    first, second, third = objects(shown, "dead-letter", "list", "--state", "all")
    assert (first["id"], first["version"], first["failed_at"]) == (str(FIRST), 3, "2026-01-02T03:04:05.678000Z")
    assert first["error"] == {"type": "builtins:KeyError", "message": "'x'"}
    assert (second["state"], second["settled_by"]) == ("open", None)
    assert (third["state"], third["settled_by"]) == ("discarded", "ada")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--handler", "count"], [SECOND]),
        (["--handler", "notify", "--state", "all"], [FIRST, THIRD]),
        (["--state", "DISCARDED"], [THIRD]),
    ],
)
def test_a_list_of_letters_is_filtered(shown: str, options: list[str], expected: list[UUID]) -> None:
    assert [UUID(found["id"]) for found in objects(shown, "dead-letter", "list", *options)] == expected


def test_a_full_page_says_that_there_are_more(shown: str) -> None:
    result = run(shown, "dead-letter", "list", "--limit", "1")
    assert (len(result.stdout.splitlines()), result.stderr) == (2, "There are more: --limit 10\n")
    assert run(shown, "dead-letter", "list", "--limit", "2").stderr == ""


def test_empty_lists_say_so_and_succeed(migrated_url: str) -> None:
    for arguments, message in (
        (["dead-letter", "list"], "No dead letters.\n"),
        (["dead-letter", "retry", "--all"], "No dead letters.\n"),
        (["dead-letter", "discard", "--handler", "x"], "No dead letters.\n"),
        (["handler", "list"], "No handlers.\n"),
    ):
        result = run(migrated_url, *arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", message)


def test_a_retried_letter_is_enqueued_for_the_newest_version_of_the_application(url: str) -> None:
    ((printed, run_id),) = [line.split() for line in lines(url, "dead-letter", "retry", str(FIRST))]
    assert printed == str(FIRST)
    assert states(url)[FIRST] == "retried"
    sql = f"""select s.name, status, queue_name, queue_partition_key, application_version,
                     workflow_input.inputs::json->'v'
              from dbos.workflow_status s join dbos.workflow_input using (workflow_uuid)
              where workflow_uuid = '{run_id}'"""
    ((name, status, queue, lane, version, values),) = rows(url, sql)
    assert (name, status, queue, lane) == ("eventic.handle", "ENQUEUED", "queue_cli_parcel", lane_of(RECORD))
    assert version is None  # whichever is newest
    assert values == {
        "handler": "notify",
        "class": "CliParcel",
        "record": str(RECORD),
        "version": 3,
        "letter": str(FIRST),
    }
    again = run(url, "dead-letter", "retry", str(FIRST))
    assert again.exit_code == 1
    assert "cannot be retried: it is retried. Only an open one can be" in again.stderr
    assert again.stderr.endswith("[conflict]\n")


def test_what_cannot_be_settled_is_reported_and_the_rest_is_done(url: str) -> None:
    result = run(url, "dead-letter", "discard", str(THIRD), str(FIRST), str(RECORD), "--actor", "grace")
    assert (result.exit_code, result.stdout) == (1, f"{FIRST}  discarded\n")
    discarded, unknown = result.stderr.splitlines()
    assert "it is discarded by ada" in discarded
    assert unknown.startswith(f"Error: There is no dead letter {RECORD}.")
    assert unknown.endswith("[not_found]")
    assert states(url) == {FIRST: "discarded", SECOND: "open", THIRD: "discarded"}
    assert rows(url, f"select settled_by from eventic.dead_letters where id = '{FIRST}'") == [("grace",)]


def test_letters_are_settled_by_handler_or_all(url: str) -> None:
    assert len(lines(url, "dead-letter", "retry", "--handler", "count")) == 1
    assert states(url) == {FIRST: "open", SECOND: "retried", THIRD: "discarded"}
    assert run(url, "dead-letter", "discard", "--all", input="n\n").exit_code == 1
    assert states(url)[FIRST] == "open"
    assert lines(url, "dead-letter", "discard", "--all", "--yes") == [f"{FIRST}  discarded"]
    assert states(url) == {FIRST: "discarded", SECOND: "retried", THIRD: "discarded"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry"],
        ["retry", "x"],
        ["retry", str(FIRST), "--all"],
        ["discard", "--all", "--handler", "x"],
        ["list", "--state", "closed"],
        ["list", "--limit", "0"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert run("postgresql://me@127.0.0.1:1/db", "dead-letter", *arguments).exit_code == 2


def test_handlers_are_listed_with_what_they_subscribe_to(shown: str) -> None:
    header, *found = [line.split() for line in lines(shown, "handler", "list")]
    assert header == ["name", "class", "kind", "method", "since", "caught_up"]
    assert found == [
        ["count", "CliParcel", "update", "-", "9", "yes"],
        ["notify", "CliParcel", "call", "publish", "0", "no"],
        ["notify", "CliParcel", "create", "-", "7", "yes"],
    ]
    assert objects(shown, "handler", "list")[1]["method"] == "publish"


def test_a_handler_is_removed_with_all_its_subscriptions_when_asked_for_twice(url: str) -> None:
    generation = "select generation from eventic.handlers_generation"
    before = rows(url, generation)
    assert run(url, "handler", "remove", "notify", input="n\n").exit_code == 1
    assert rows(url, generation) == before
    result = run(url, "handler", "remove", "notify", "--yes")
    assert (result.exit_code, result.stderr) == (0, "Removed handler notify: 2 subscriptions.\n")
    assert [row["name"] for row in objects(url, "handler", "list")] == ["count"]
    assert rows(url, generation) > before
    assert states(url)[FIRST] == "open"
    again = run(url, "handler", "remove", "notify", "--yes")
    assert again.exit_code == 1
    assert again.stderr == "Error: No handler 'notify' is subscribed. They are: count. [not_found]\n"


def test_looking_loads_no_dbos(shown: str) -> None:
    code = textwrap.dedent("""
        import sys
        from eventic_core.cli import main
        for command in (["dead-letter", "list"], ["handler", "list"]):
            main([*command, "--database-url", sys.argv[1]], standalone_mode=False)
        assert "dbos" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", code, shown], check=True, capture_output=True)
