"""Readiness without faults of the server: tables gone, connections used up, workers that drain; how it is served."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from conftest import execute, until
from fastapi.testclient import TestClient

from eventic_core import ConfigurationError, Eventic
from eventic_core.operations.health_server import HealthServer
from eventic_core.operations.look import Look
from eventic_core.operations.readiness import liveness, readiness
from eventic_core.runtime import process
from eventic_core.serving import health_routes
from eventic_core.settings import libpq_url
from eventic_core.store.migrate import needed_revision

if TYPE_CHECKING:
    from pathlib import Path


def codes() -> list[str]:
    return [cause.code for cause in readiness().causes]


@pytest.mark.parametrize(
    ("change", "back", "code"),
    [
        (
            "update eventic.eventic_version set version_num = '0001'",
            "update eventic.eventic_version set version_num = '{}'",
            "tables_behind",
        ),
        (
            "alter table eventic.eventic_version rename to hidden",
            "alter table eventic.hidden rename to eventic_version",
            "tables_missing",
        ),
    ],
)
def test_readiness_is_red_while_the_tables_are_not_at_the_revision(
    eventic: str, change: str, back: str, code: str
) -> None:
    assert codes() == []
    execute(eventic, change)
    until(lambda: codes() == [code])
    execute(eventic, back.format(needed_revision()))
    until(lambda: codes() == [])


def test_tables_that_are_newer_leave_an_old_process_ready(eventic: str) -> None:
    execute(eventic, "update eventic.eventic_version set version_num = '9999'")
    assert codes() == []


def test_a_server_without_connections_left_leaves_a_process_ready_that_has_its_own(eventic: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(libpq_url(eventic))["dbname"]
    role = f"health_{name}"
    execute(eventic, f"create role {role} login connection limit 0 in role pg_read_all_data")
    try:
        Eventic.shutdown()
        Eventic.init(name="tests", database_url=eventic)
        engine = process().store.database.engine
        engine.url = engine.url.set(username=role)
        assert codes() == []
    finally:
        execute(eventic, f"drop role {role}")


def test_nothing_is_ready_that_is_not_connected() -> None:
    assert codes() == ["not_connected"]
    assert [cause.code for cause in readiness(needs_worker=True).causes] == ["draining", "not_connected"]
    assert liveness().is_well


def test_a_look_that_hangs_is_waited_for_by_nobody_twice_and_its_answer_counts_in_the_end() -> None:
    goes_on = threading.Event()
    calls = []

    def look() -> int:
        calls.append(1)
        goes_on.wait(60)
        return len(calls)

    slow = Look(look, kept_seconds=3600, patience_seconds=0.05)
    assert [slow.ask() for _ in range(5)] == [None] * 5
    assert calls == [1]
    goes_on.set()
    while (answer := slow.ask()) is None:
        pass
    assert answer == 1
    assert slow.ask() == 1  # kept


def test_a_look_that_fails_tells_whoever_asks_and_is_made_again() -> None:
    found: Look[int] = Look(lambda: 1 // 0, kept_seconds=0, patience_seconds=60)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            found.ask()


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


APP = """
import time
from eventic_core import Eventic
@Eventic.step(name="health_sleep")


def sleep(seconds: float) -> None:
    open(PATH, "w").close()
    time.sleep(seconds)
QUEUE = Eventic.queue("health")
"""


def test_a_worker_serves_how_it_is_and_is_not_ready_while_it_drains(eventic: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "health_app.py").write_text(APP.replace("PATH", repr(str(begun))), encoding="utf-8")
    command = [sys.executable, "-m", "eventic_core", "worker", "health_app", "--database-url", eventic]
    port = free_port()
    with subprocess.Popen([*command, "--health-port", str(port)], cwd=tmp_path, stderr=subprocess.PIPE) as worker:
        try:
            assert worker.stderr is not None
            line = worker.stderr.readline()
            assert b"works on" in line, line + worker.stderr.read()
            assert ask(port, "/livez") == (200, '{"ok": true, "causes": []}\n')
            assert ask(port, "/readyz") == (200, '{"ok": true, "causes": []}\n')
            assert "eventic_up 1.0" in ask(port, "/metrics")[1]
            assert "eventic_up" not in ask(port, "/metrics?system=false")[1]
            assert ask(port, "/")[0] == 404
            enqueue_sleep(4)
            until(begun.exists)
            worker.send_signal(signal.SIGTERM)
            until(lambda: ask(port, "/readyz")[0] == 503)
            status, text = ask(port, "/readyz")
            assert (status, json.loads(text)["causes"][0]["code"]) == (503, "draining")
            assert ask(port, "/livez")[0] == 200
        finally:
            worker.terminate()
            worker.communicate(timeout=100)
    assert worker.returncode == 128 + signal.SIGTERM  # the second one ended it at once


def enqueue_sleep(seconds: float) -> None:
    @Eventic.step(name="health_sleep")
    def sleep(seconds: float) -> None: ...

    Eventic.queue("health").enqueue(sleep, seconds)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_health_is_refused_on_an_address_that_others_reach(host: str) -> None:
    with pytest.raises(ConfigurationError, match="EVENTIC_API_TOKENS"):
        HealthServer(0, host=host)


def test_a_port_that_is_taken_is_refused_with_what_to_do() -> None:
    first = HealthServer(0)
    port = first.start()
    try:
        with pytest.raises(ConfigurationError, match=f"port {port}.*Choose another"):
            HealthServer(port).start()
    finally:
        first.stop()


def test_an_app_serves_health_where_it_says_and_nowhere_else(eventic: str) -> None:
    app = Eventic.create_app("health", db_url=eventic, queues=[])
    app.include_router(health_routes(), prefix="/internal")
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        assert client.get("/internal/livez").json() == {"ok": True, "causes": []}
        assert client.get("/internal/readyz").status_code == 200
        response = client.get("/internal/metrics")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "# TYPE eventic_workers gauge" in response.text
        assert client.get("/readyz").status_code == 404
        execute(eventic, "update eventic.eventic_version set version_num = '0001'")
        until(lambda: client.get("/internal/readyz").status_code == 503)
        assert client.get("/internal/readyz").json()["causes"][0]["code"] == "tables_behind"
