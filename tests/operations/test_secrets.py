"""Secrets: whatever fails, passwords, tokens, keys and values are in no log, error, answer or list."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout

import psycopg
import pytest
from click.testing import CliRunner
from conftest import execute
from fastapi.testclient import TestClient

from eventic_core import Eventic, Record
from eventic_core.cli import main
from eventic_core.operations import OperatorAct
from eventic_core.operations.queues import pause_queue
from eventic_core.serving import operation_routes

PASSWORD, TOKEN, PAYLOAD, KEY = "pass-marker-1", "token-marker-0123456789", "payload-marker-3", "key-marker-4"
MARKERS = (PASSWORD, TOKEN, PAYLOAD, KEY)
AWAY = f"postgresql://somebody:{PASSWORD}@127.0.0.1:1/nowhere?connect_timeout=1&sslpassword={PASSWORD}"


class SecretPaper(Record, unique=["code"]):
    code: str
    count: int = 0


class Seen(logging.Handler):
    """Everything that anybody logs, as the strictest formatter would write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{self.format(record)} {vars(record)}\n"


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler, root = Seen(), logging.getLogger()
    names = [None, "eventic", "dbos", "sqlalchemy.engine", "sqlalchemy.pool", "psycopg", "psycopg.pool", "alembic"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def failing(act: Callable[[], object]) -> str:
    """Give everything that an error shows of itself."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - each one is looked at
        return f"{error} {error!r} {traceback.format_exc()}"
    pytest.fail("it did not fail")


def found(text: str, *markers: str) -> list[str]:
    return [marker for marker in markers or MARKERS if marker in text]


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        "worker list",
        "queue list",
        "run list",
        "migrate",
        "grant somebody",
        "dead-letter list",
        "retention plan",
    ],
)
def test_a_command_that_cannot_connect_shows_no_password(
    command: str, seen: Seen, monkeypatch: pytest.MonkeyPatch, bare_environment: None
) -> None:
    monkeypatch.setenv("EVENTIC_RECONNECT_SECONDS", "0")
    monkeypatch.setenv("EVENTIC_API_TOKENS", f"ada:admin:{TOKEN}")
    for arguments in ([*command.split(), "--database-url", AWAY], command.split()):
        monkeypatch.setenv("EVENTIC_DATABASE_URL", AWAY)
        done = CliRunner().invoke(main, ["--debug", *arguments])
        assert done.exit_code != 0
        assert found(done.output + done.stderr + str(done.exception) + seen.text) == []


@pytest.mark.parametrize(
    "setting",
    [f"{TOKEN}", f"ada:boss:{TOKEN}", f"ada:admin:{TOKEN},bob:read:{TOKEN}"],
)
def test_settings_that_do_not_fit_show_no_token(setting: str, eventic: str, seen: Seen) -> None:
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=eventic, api_tokens=setting)
    app = Eventic.create_app("tests")
    app.include_router(operation_routes())
    response = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)).get("/workers")
    assert response.status_code == 500
    assert found(response.text + repr(Eventic.settings()) + str(Eventic.settings()) + seen.text) == []


def test_what_fails_in_the_database_shows_no_value(eventic: str, seen: Seen) -> None:
    paper = SecretPaper(code="free")
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=eventic, statement_timeout_seconds=0.2, reconnect_seconds=0)

    def statement_error() -> None:
        execute(eventic, f"alter table eventic.records add constraint broken check (data ->> 'code' <> '{PAYLOAD}')")
        SecretPaper(code=PAYLOAD)

    def lost_connection() -> None:
        with Eventic.unit_of_work():
            with psycopg.connect(eventic, autocommit=True) as other:
                Eventic.connection()
                other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where pid <> pg_backend_pid() and datname = current_database()"
                )
            paper.code = f"{PAYLOAD}-2"

    def too_slow() -> None:
        with psycopg.connect(eventic) as other:
            other.execute("lock table eventic.records")
            SecretPaper(code=f"{PAYLOAD}-3")

    shown = [failing(act) for act in (statement_error, lost_connection, too_slow)]
    assert [found(text) for text in shown] == [[], [], []], shown
    assert found(seen.text) == [], seen.text


def test_acts_and_problems_show_no_key_and_no_token(eventic: str, seen: Seen) -> None:
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=eventic, api_tokens=f"ada:admin:{TOKEN}")
    app = Eventic.create_app("tests")
    app.include_router(operation_routes())
    http = TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {TOKEN}"})
    texts = [http.post("/queues/q/pause", headers={"Idempotency-Key": KEY}).text]
    texts += [http.post("/queues/q/resume", headers={"Idempotency-Key": KEY}).text]  # refused: the key is another's
    texts += [http.get("/acts").text, http.get("/queues").text, http.get("/acts", headers={"Authorization": KEY}).text]
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        for command in ("worker list --ended", "queue list", "doctor"):
            main([*command.split(), "--database-url", eventic], standalone_mode=False)
    assert found("".join(texts) + out.getvalue() + seen.text) == []


def test_a_name_of_an_act_is_no_place_for_a_key(eventic: str) -> None:
    pause_queue("q", request_key=KEY)
    act = OperatorAct.where().first()
    assert act is not None
    assert found(f"{act.details} {act.act} {act.target} {act.stamp}") == []
