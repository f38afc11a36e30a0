"""`eventic doctor`: what it prints where, how it ends, and which database it looks at."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from conftest import execute

from eventic_core import Eventic
from eventic_core.cli import main
from eventic_core.runtime import adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("bare_environment")

NO_SERVER = "postgresql://me:hunter2@127.0.0.1:1/db"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], prog_name="eventic")


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def is_durable(url: str) -> bool:
    """Whether the test server itself is as it should be; a fast one is not."""
    with psycopg.connect(url) as connection:
        return connection.execute("show fsync").fetchone() == ("on",)


@pytest.fixture
def module(database_url: str) -> Iterator[str]:
    """An application that names its database."""
    Path("doctor_shop.py").write_text(
        f"from eventic_core import Eventic\napp = Eventic.create_app('shop', db_url={database_url!r})\n"
    )
    before = Eventic._declared
    yield "doctor_shop:app"
    Eventic._declared = before
    sys.modules.pop("doctor_shop", None)


def test_an_empty_database_says_migrate_and_ends_with_1(database_url: str) -> None:
    result = run("--database-url", database_url)
    assert result.exit_code == 1
    assert "PROBLEM  migrations       eventic's tables are not there" in result.stdout
    assert "-> run `eventic migrate`." in result.stdout
    assert "problems." in result.stderr


def test_what_is_only_a_warning_ends_with_0(migrated_url: str) -> None:
    adapter.migrate(migrated_url)
    result = run("--database-url", migrated_url)
    assert "warning  workers          none is alive; what is enqueued will wait" in result.stdout
    assert result.stdout.count("PROBLEM") == result.exit_code == int(not is_durable(migrated_url))


def test_an_old_schema_ends_with_1_though_nothing_else_could_connect(migrated_url: str) -> None:
    execute(migrated_url, "update eventic.eventic_version set version_num = '0001'")
    result = run("--database-url", migrated_url, "--json")
    (found,) = [line for line in lines(result) if line["check"] == "migrations"]
    assert result.exit_code == 1
    assert (found["status"], found["remedy"]) == ("problem", "run `eventic migrate`.")
    assert found["found"].startswith("eventic's tables are at revision 0001, this version needs ")


def test_a_database_that_cannot_be_reached_ends_with_3_and_no_password() -> None:
    result = run("--database-url", NO_SERVER, "--json")
    (found,) = lines(result)
    assert (result.exit_code, found["check"], found["status"]) == (3, "database", "problem")
    assert "does not answer" in found["found"]
    assert "hunter2" not in result.output
    assert run("--database-url", NO_SERVER).exit_code == 3


def test_json_has_the_same_findings_one_to_a_line(migrated_url: str) -> None:
    found = lines(run("--database-url", migrated_url, "--json"))
    assert all(set(line) == {"check", "status", "found", "remedy"} for line in found)
    assert all((line["remedy"] is None) == (line["status"] == "ok") for line in found)
    printed = run("--database-url", migrated_url).stdout.splitlines()
    assert [line.split()[1] for line in printed if not line.startswith(" ")] == [line["check"] for line in found]


def test_the_application_names_its_database_and_is_named_in_remedies(module: str, database_url: str) -> None:
    adapter.migrate(database_url)
    result = run("--app", module)
    assert f"database {database_url.partition('/test_')[2].partition('?')[0]}" in result.stdout.replace("test_", "")
    assert "start `eventic worker doctor_shop:app`." in result.stdout
    assert not Eventic.is_launched()


def test_the_command_line_beats_what_the_application_names(module: str) -> None:
    assert run("--app", module, "--database-url", NO_SERVER).exit_code == 3


def test_an_application_that_cannot_be_imported_ends_with_3() -> None:
    result = run("--app", "no_such_shop")
    assert (result.exit_code, "cannot be imported" in result.stderr) == (3, True)


def test_the_database_is_found_where_the_other_commands_find_it(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTIC_DATABASE_URL", migrated_url)
    assert "eventic's tables are at revision" in run().stdout


def test_what_a_terminal_would_obey_is_escaped(migrated_url: str) -> None:
    adapter.migrate(migrated_url)
    execute(
        migrated_url,
        """insert into dbos.workflow_status (workflow_uuid, status, queue_name, created_at, updated_at)
           values ('a', 'ENQUEUED', e'red\\x1b[31m', 0, 0)""",
    )
    result = run("--database-url", migrated_url)
    assert "\x1b" not in result.stdout
    assert "1 run of any version on red\\x1b[31m" in result.stdout
