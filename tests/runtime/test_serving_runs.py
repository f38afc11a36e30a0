"""`run_routes`: how far a run of an automation is, over HTTP, from a server that really serves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import contextlib, json, http.client, threading, time
from uuid import uuid4

import fastapi.routing
import uvicorn
from fastapi import Depends, Header, HTTPException

from eventic_core import Eventic
from eventic_core.automation.declared import automation
from eventic_core.serving import run_routes

gate = threading.Event()

@automation("served", concurrency=1, group_size=1)
def work(item: int) -> int:
    if item == 2:
        assert gate.wait(100)
    if item == 3:
        raise ValueError("three")
    return item

app = Eventic.create_app("served runs")

@contextlib.contextmanager
def serving():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        gate.set()
        server.should_exit = True
        thread.join()

def until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def ask(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection, connection.getresponse()

def get(port, path, **headers):
    connection, response = ask(port, path, **headers)
    with contextlib.closing(connection):
        body = response.read()
        return response.status, json.loads(body) if body else None

def events(response):
    found = {}
    for line in response:
        name, _, value = line.decode().rstrip("\\n").partition(": ")
        if name:
            found[name] = json.loads(value) if name == "data" else value
        elif found:
            yield found
            found = {}

def started(*items):
    return work.start(work.batch(uuid4().hex, items))
"""


def run(folder: Path, url: str, body: str) -> None:
    script = folder / "served_runs.py"
    script.write_text(APP + textwrap.dedent(body), encoding="utf-8")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("EVENTIC_")}
    environment = bare | {"EVENTIC_DATABASE_URL": url}
    ended = subprocess.run([sys.executable, "-W", "error", script], env=environment, cwd=folder, check=False, **PIPES)
    assert (ended.returncode, ended.stderr) == (0, "")


PIPES = {"capture_output": True, "text": True}


def test_progress_is_json_and_an_unknown_run_a_problem(migrated_url: str, tmp_path: Path) -> None:
    body = """
        app.include_router(run_routes())
        with serving() as (_, port):
            run = started(1, 3)
            run.wait()
            status, seen = get(port, f"/runs/{run.id}/progress")
            assert status == 200
            wanted = {"run_id": str(run.id), "status": "FAILED", "state": "ended", "total": 2, "done": 2,
                      "completed": 1, "failed": 1, "failures": {"ValueError": 1}, "eta_seconds": None}
            assert {name: seen[name] for name in wanted} == wanted, seen
            for path in ("progress", "watch"):
                status, problem = get(port, f"/runs/{uuid4()}/{path}")
                assert (status, problem["type"]) == (404, "run_not_found"), problem
                assert get(port, f"/runs/nonsense/{path}")[0] == 422
    """
    run(tmp_path, migrated_url, body)


def test_watching_streams_changes_and_ends_with_the_run(migrated_url: str, tmp_path: Path) -> None:
    body = """
        app.include_router(run_routes())
        with serving() as (_, port):
            run = started(1, 2, 4)
            connection, response = ask(port, f"/runs/{run.id}/watch")
            assert response.status == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            stream = events(response)
            first = next(stream)
            assert (first["event"], first["data"]["total"], first["data"]["state"]) == ("progress", 3, "running"), first
            gate.set()
            *_, last = stream
            assert (last["event"], last["id"]) == ("end", "ended"), last
            assert (last["data"]["status"], last["data"]["done"]) == ("COMPLETED", 3), last
            connection.close()

            # an EventSource connects again: it stops at 204, which it gets only if it has seen the end
            assert get(port, f"/runs/{run.id}/watch", Last_Event_ID="ended") == (204, None)
            connection, response = ask(port, f"/runs/{run.id}/watch")
            assert [event["event"] for event in events(response)] == ["end"]
            connection.close()
    """
    run(tmp_path, migrated_url, body)


def test_watching_keeps_an_idle_connection_open_and_stops_with_its_client(migrated_url: str, tmp_path: Path) -> None:
    body = """
        fastapi.routing._PING_INTERVAL = 0.05
        app.include_router(run_routes())
        with serving() as (server, port):
            run = started(2)
            connection, response = ask(port, f"/runs/{run.id}/watch")
            assert any(line == b": ping\\n" for line in response)
            assert len(server.server_state.tasks) == 1
            response.close()
            connection.close()
            until(lambda: not server.server_state.tasks)
            assert not run.progress().is_ended
    """
    run(tmp_path, migrated_url, body)


def test_the_app_chooses_prefix_and_authentication(migrated_url: str, tmp_path: Path) -> None:
    body = """
        def signed_in(authorization: str | None = Header(None)) -> None:
            if authorization != "me":
                raise HTTPException(401)

        with serving() as (_, port):
            run = started(1)
            run.wait()
            assert get(port, f"/runs/{run.id}/progress")[0] == 404  # unless asked for, nothing is served
        app.include_router(run_routes(), prefix="/ops", dependencies=[Depends(signed_in)])
        with serving() as (_, port):
            for path in ("progress", "watch"):
                assert get(port, f"/ops/runs/{run.id}/{path}")[0] == 401
            assert get(port, f"/ops/runs/{run.id}/progress", Authorization="me")[0] == 200
    """
    run(tmp_path, migrated_url, body)
