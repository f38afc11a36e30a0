"""`eventic retention`, `purge` and `erase` from the shell: options, what is printed, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from eventic_core import Eventic, Record
from eventic_core.cli._root import main

pytestmark = pytest.mark.usefixtures("bare_environment")


class Client(Record, class_type="CommandClient"):
    name: str


def run(url: str, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, [*arguments, "--database-url", url], input=given)


@pytest.fixture
def url(migrated_url: str) -> Iterator[str]:
    Eventic.init(name="tests", database_url=migrated_url)
    yield migrated_url
    Eventic.shutdown()


def test_rules_are_set_listed_planned_applied_and_dropped(url: str) -> None:
    client = Client(name="a")
    client.name = "b"
    history = ["retention", "rule", "set", "old", "--remove", "history", "--of", "CommandClient"]
    made = run(url, *history, "--older-than", "30d", "--actor", "ada")
    assert (made.exit_code, made.stdout.split()[-7:]) == (
        0,
        ["old", "history", "CommandClient", "-", "2592000", "0", "ada"],
    )
    listed = [json.loads(line) for line in run(url, "retention", "rule", "list", "--json").stdout.splitlines()]
    assert [(rule["rule"], rule["older_than_seconds"]) for rule in listed] == [("old", 2_592_000)]
    assert run(url, "retention", "plan").stdout.split() == ["rule", "removes", "would_remove", "old", "history", "0"]
    assert run(url, "retention", "apply", "--request-key", "k").stdout == "old  removed 0 (0 rows)\n"
    assert run(url, "retention", "rule", "drop", "old").stdout == "old  dropped\n"
    assert run(url, "retention", "apply").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["retention", "rule", "set", "x", "--remove", "history", "--older-than", "soon"], 1, "'soon' is no age"),
        (["retention", "rule", "set", "x", "--remove", "all", "--older-than", "1d"], 2, "Invalid value"),
        (["retention", "apply", "absent"], 1, "There is no retention rule 'absent'"),
        (["purge"], 1, "Name the class"),
        (["purge", "--id", str(uuid4())], 1, "it was purged, or never there"),
        (["erase", str(uuid4())], 2, "--field"),
        (["erase", str(uuid4()), "--all"], 1, "No record"),
        (["erase", str(uuid4()), "--field", "a", "--placeholder", "a=b"], 2, "no JSON"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(url: str, arguments: list[str], code: int, said: str) -> None:
    result = run(url, *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_purge_says_how_many_and_asks(url: str) -> None:
    Client(name="a").delete()
    assert run(url, "purge", "CommandClient", "--dry-run").stdout == "CommandClient  would remove 1\n"
    refused = run(url, "purge", "CommandClient", given="n\n")
    assert (refused.exit_code, "Remove 1 for good?" in refused.stderr) == (1, True)
    assert run(url, "purge", "CommandClient", "--yes").stdout == "CommandClient  removed 1\n"


def test_erase_asks_and_prints_what_it_overwrote(url: str) -> None:
    client = Client(name="Ada Lovelace")
    client_id = str(client.id)
    dry = run(url, "erase", client_id, "--field", "name", "--dry-run", "--json")
    assert json.loads(dry.stdout)["versions"] == 1
    assert run(url, "erase", client_id, "--field", "name", given="n\n").exit_code == 1
    done = run(url, "erase", client_id, "--field", "name", "--value", "-", "--yes", given="Ada\n")
    assert (done.exit_code, done.stdout.split()) == (0, ["overwritten", "rows", "versions", "1"])
    Eventic.init(name="tests", database_url=url)
    assert Client.hydrate(client_id).name == "[erased]"
