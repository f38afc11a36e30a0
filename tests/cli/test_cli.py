"""The command line: what it imports, what it prints where, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from eventic_core.cli import main
from eventic_core.errors import RecordNotFound

NO_SERVER = "postgresql://me:hunter2@127.0.0.1:1/db"


pytestmark = pytest.mark.usefixtures("bare_environment")


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="eventic", **options)


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eventic_core", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_exit_code() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in (
        "demo",
        "migrate",
        "version",
        "0    done",
        "2    wrong usage",
        "3    configuration",
        "130  interrupted",
    ):
        assert word in result.output


@pytest.mark.parametrize("command", ["migrate", "version"])
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"eventic {command}" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = textwrap.dedent("""
        import sys
        from eventic_core.cli import main
        main(["--help"], standalone_mode=False)
        heavy = {"alembic", "dbos", "fastapi", "psycopg", "pydantic", "rich", "sqlalchemy"} & sys.modules.keys()
        assert not heavy, heavy
    """)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version_prints_text_and_json() -> None:
    assert run("version").stdout.startswith("eventic-core ")
    assert {"eventic-core", "dbos", "python"} <= json.loads(run("version", "--output", "json").stdout).keys()


def test_the_module_runs_the_same_command_line() -> None:
    done = in_process("version")
    assert done.returncode == 0
    assert done.stdout.startswith("eventic-core ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["migrat"], "Did you mean 'migrate'?"), (["xyzzy"], "The commands are"), (["--nonsense"], "No such option")],
)
def test_wrong_usage_ends_with_2(arguments: list[str], hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_a_configuration_error_is_one_line_and_ends_with_3() -> None:
    result = run("migrate")
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: There is no database to migrate.")
    assert result.stderr.endswith("[configuration]\n")
    assert "DATABASE_URL" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("debug", [True, False])
def test_a_traceback_is_shown_only_with_debug_and_never_a_password(*, debug: bool) -> None:
    done = in_process(*(["--debug"] if debug else []), "migrate", "--database-url", NO_SERVER)
    assert done.returncode == 3
    assert ("Traceback" in done.stderr) is debug
    assert done.stderr.splitlines()[-1].endswith("[unavailable]")
    assert "hunter2" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RecordNotFound("No such record."), 1, "Error: No such record. [record_not_found]"),
        (RuntimeError("odd"), 1, "Error: RuntimeError: odd. Run again as `eventic --debug` to see where. [unexpected]"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.UsageError("No."), 2, "Error: No."),
    ],
)
def test_errors_become_a_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr("eventic_core.cli.version.version", failing)
    result = run("version")
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1] == line


def test_an_interrupt_ends_with_130(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as blocker:
        blocker.execute("select pg_advisory_lock(%s)", [0x657665_6E746963])
        command = [sys.executable, "-m", "eventic_core", "migrate", "--database-url", database_url]

        def heed_interrupts() -> None:  # also where the tests run in the background, which ignores them
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as child:  # noqa: PLW1509 - before any thread
            while not blocker.execute(
                "select 1 from pg_stat_activity where datname = current_database() and query like '%try_advisory%'"
                " and pid <> pg_backend_pid()"
            ).fetchall():
                assert child.poll() is None
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=100)
    assert (child.returncode, errors.strip()) == (130, "Interrupted.")


def test_migrate_up_and_down(database_url: str) -> None:
    place = ("--database-url", database_url)
    for arguments in (("migrate", *place), ("migrate", *place, "up"), ("migrate", "up", "head", *place)):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "is at revision 0007" in result.stderr
    assert run("migrate", "down", "base", *place, input="n\n").exit_code == 1
    result = run("migrate", "down", "base", "--yes", *place)
    assert (result.exit_code, "is down at revision base" in result.stderr) == (0, True)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select to_regnamespace('eventic')").fetchone() == (None,)


@pytest.mark.parametrize("arguments", [["migrate", "--sql"], ["migrate", "--sql", "up"], ["migrate", "up", "--sql"]])
def test_sql_is_printed_without_connecting(arguments: list[str]) -> None:
    result = run(*arguments, env={"DATABASE_URL": NO_SERVER})
    assert result.exit_code == 0
    assert "CREATE TABLE eventic.records" in result.stdout
    assert result.stderr == ""


def test_sql_of_the_way_down_needs_no_consent() -> None:
    result = run("migrate", "down", "base", "--sql", "--database-url", "embedded")
    assert result.exit_code == 0
    assert "DROP TABLE eventic.records" in result.stdout


def test_an_app_is_imported_from_the_working_directory_for_its_indexes(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    Path("shop_app.py").write_text("import pathlib; pathlib.Path('imported').touch()\n")
    monkeypatch.setattr("eventic_core.records.declared_indexes", lambda: [("Todo", "text", "text")], raising=False)
    result = run("migrate", "--database-url", database_url, "--app", "shop_app:app")
    assert (result.exit_code, result.exception) == (0, None)
    assert "Built the index of Todo.text." in result.stderr
    assert Path("imported").exists()
    again = run("migrate", "--database-url", database_url, env={"EVENTIC_APP": "shop_app"})
    assert (again.exit_code, "Built" in again.stderr) == (0, False)


def test_an_app_that_cannot_be_imported_is_named() -> None:
    result = run("migrate", "--database-url", NO_SERVER, "--app", "no_such_shop")
    assert result.exit_code == 3
    assert "'no_such_shop' cannot be imported" in result.stderr
