"""`dbos-runner` and `eventic worker`: what they accept, print and refuse; what workers do is in tests/runtime."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from eventic_core.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("bare_environment")

RUNNER = ["-c", "from eventic_core.cli.worker import runner; runner()"]
WORKER = ["-m", "eventic_core", "worker"]
NO_SERVER = "postgresql://me:hunter2@127.0.0.1:1/db"
APP = """
from eventic_core import Eventic, Record
class CliStory(Record):
    title: str = ""
    def publish(self) -> None:
        self.title = "published"
"""


def refused(*arguments: str) -> tuple[int, str]:
    """Run `dbos-runner` where it cannot start; gives its exit code and its last line."""
    command = [sys.executable, *RUNNER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def line_of(*arguments: str, number: int = signal.SIGTERM) -> str:
    """Start a worker, end it with a signal, and give the line it printed."""
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        line = worker.stderr.readline()
        worker.send_signal(number)
        _, errors = worker.communicate(timeout=100)
    assert worker.returncode == 0, line + errors
    first, last = errors.splitlines()
    assert first == "Stopping: what runs is waited for."
    assert last.startswith("Stopped after")
    return line


def database_of(url: str) -> str:
    return urlsplit(url).path


@pytest.mark.parametrize("command", [RUNNER, WORKER], ids=["dbos-runner", "eventic worker"])
def test_help_imports_nothing_heavier_than_click(command: list[str]) -> None:
    code = command[1] if command is RUNNER else "from eventic_core.cli import main; main(['worker', 'run', '--help'])"
    heavy = ("alembic", "dbos", "fastapi", "psycopg", "pydantic", "rich", "sqlalchemy", "yaml")
    check = textwrap.dedent(f"""
        import sys
        sys.argv = ["dbos-runner", "--help"]
        try:
            {code}
        except SystemExit as ended:
            assert not ended.code
        assert not {set(heavy)!r} & sys.modules.keys()
    """)
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "SIGTERM" in done.stdout
    assert "--drain-seconds" in done.stdout


def test_the_console_script_is_installed_under_its_name() -> None:
    script = Path(sys.executable).with_name("dbos-runner")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: dbos-runner [OPTIONS] TARGET")
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "Usage: dbos-runner [OPTIONS] TARGET")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_shop", "The module 'no_such_shop' cannot be imported: No module named 'no_such_shop'."),
        ("no_such_shop:app", "The module 'no_such_shop' cannot be imported"),
        ("..", "The module '..' cannot be imported"),
        ("needy", "The module 'needy' cannot be imported: No module named 'no_such_need'."),
        ("json:app", "The module 'json' has no 'app'"),
        ("json:decoder.nothing", "The module 'json' has no 'decoder.nothing'"),
        ("json", "No database is named: set EVENTIC_DATABASE_URL, or say EVENTIC_DATABASE_URL=embedded."),
    ],
)
def test_what_cannot_be_run_ends_with_3_and_says_why(target: str, message: str) -> None:
    Path("needy.py").write_text("import no_such_need\n")
    code, line = refused(target)
    assert (code, line.startswith(f"Error: {message}"), line.endswith("[configuration]")) == (3, True, True)


def test_a_database_that_does_not_answer_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTIC_RECONNECT_SECONDS", "0")
    code, line = refused("json", "--database-url", NO_SERVER)
    assert (code, line.endswith("[unavailable]")) == (3, True)


@pytest.mark.parametrize("option", [["--drain-seconds", "-1"], ["--drain-seconds", "soon"], ["--nonsense"], ["more"]])
def test_wrong_usage_ends_with_2(option: list[str]) -> None:
    assert CliRunner().invoke(main, ["worker", "json", *option]).exit_code == 2


def test_an_error_of_the_application_is_named() -> None:
    Path("broken.py").write_text("1 / 0\n")
    code, line = refused("broken")
    assert (code, line.startswith("Error: ZeroDivisionError: division by zero")) == (1, True)


@pytest.mark.parametrize(
    "declared",
    [
        'app = Eventic.create_app("shop", db_url={url!r}, settings={{"pool_size": 3}})',
        'Eventic.init(name="shop", database_url={url!r}, pool_size=3)\napp = 1',
        'Eventic.init(name="shop", database_url={url!r}, pool_size=3)\nEventic.launch()\napp = 1',
    ],
    ids=["create_app", "init", "launch"],
)
def test_the_application_says_its_name_and_database_and_the_command_line_wins(
    migrated_url: str, database_url: str, declared: str
) -> None:
    Path("shop.py").write_text(APP + declared.format(url=migrated_url))
    if "create_app" in declared:
        line = line_of(*RUNNER, "shop:app")
        assert line.startswith("shop worker-0 works on ")
        assert "queue_cli_story" in line
        assert f"{database_of(migrated_url)}?" in f"{line}?".replace(" ", "?")
    line = line_of(*WORKER, "shop", "--database-url", database_url, "--queue", "parcels", number=signal.SIGINT)
    assert line.startswith("shop worker-0 works on parcels")
    assert "queue_cli_story" not in line
    assert f"{database_of(database_url)}?" in f"{line}?".replace(" ", "?")


def test_a_role_that_makes_no_tables_can_work_after_a_migration(server_url: str, database_url: str) -> None:
    Path("shop.py").write_text(
        APP
        + textwrap.dedent("""
        from eventic_core import later, on
        app = Eventic.create_app("shop", settings={"auto_migrate": False})
        @on.create(CliStory)
        def published(story: CliStory) -> None:
            later(story.publish)
        """)
    )
    done = CliRunner().invoke(main, ["migrate", "--database-url", database_url])
    assert (done.exit_code, done.exception) == (0, None)
    role = f"worker_{uuid4().hex[:12]}"
    grants = "".join(
        f"grant usage on schema {schema} to {role};"
        f"grant select, insert, update, delete on all tables in schema {schema} to {role};"
        f"grant usage on all sequences in schema {schema} to {role};"
        for schema in ("eventic", "dbos")
    )
    for connection in admin(database_url):
        connection.execute(f"create role {role} login; {grants}".encode())
        try:
            url = urlunsplit(
                urlsplit(database_url)._replace(netloc=f"{role}@{urlsplit(database_url).netloc.rpartition('@')[2]}")
            )
            worker = subprocess.Popen(
                [sys.executable, *RUNNER, "shop", "--database-url", url], stderr=subprocess.PIPE, text=True
            )
            assert worker.stderr is not None
            line = worker.stderr.readline()
            assert "works on" in line, line
            script = "import sys; from shop import *; Eventic.init(name='shop', database_url=sys.argv[1]); CliStory()"
            subprocess.run([sys.executable, "-c", script, url], check=True, timeout=100)
            done_sql = b"select count(*) from eventic.records where data->>'title' = 'published'"
            for _ in range(1000):
                if connection.execute(done_sql).fetchone() == (1,):
                    break
                connection.execute("select pg_sleep(0.02)")
            else:
                pytest.fail("nothing was done")
            worker.send_signal(signal.SIGTERM)
            _, errors = worker.communicate(timeout=100)
            assert (worker.returncode, len(errors.splitlines())) == (0, 2)
        finally:
            worker.kill()
            connection.execute(f"drop owned by {role}; drop role {role}".encode())


def admin(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_a_migration_up_to_the_newest_brings_dbos_up_to_date_too(database_url: str) -> None:
    for arguments, expected in ((["up", "0001"], None), (["up"], "dbos"), (["down", "base", "--yes"], "dbos")):
        done = CliRunner().invoke(main, ["migrate", *arguments, "--database-url", database_url])
        assert (done.exit_code, done.exception) == (0, None)
        for connection in admin(database_url):
            assert connection.execute("select to_regnamespace('dbos')::text").fetchone() == (expected,)
