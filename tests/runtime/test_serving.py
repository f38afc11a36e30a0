"""`Eventic.create_app`: launched by its lifespan, drained at its end, harmless beside `Eventic.launch`."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import asyncio, contextlib, json, sys
from uuid import UUID
from eventic_core import ConfigurationError, Eventic, Record, RecordNotFound

class Served(Record):
    text: str = ""

events = []

@contextlib.asynccontextmanager
async def own(app):
    events.append(("own starts", Eventic.is_launched()))
    yield {"own": 1}
    events.append(("own ends", Eventic.is_launched()))

app = Eventic.create_app("served app", lifespan=own, version="3.1")
queue = Eventic.queue("served")

@Eventic.transaction()
def write(text: str) -> UUID:
    return Served(text=text).id

@Eventic.workflow()
def write_later(text: str) -> UUID:
    return queue.enqueue(write, text).result()

@app.get("/records/{record_id}")
def read(record_id: UUID) -> dict:
    return {"text": Served.hydrate(record_id).text}

async def get(path):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [],
             "server": ("test", 80), "client": ("test", 1), "state": {}, "app": app}
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-type"].decode(), json.loads(body)

async def main():
    async with app.router.lifespan_context(app) as state:
        assert state == {"own": 1} and Eventic.is_launched()
        made = await asyncio.to_thread(write_later, "hello")
        assert await get(f"/records/{made}") == (200, "application/json", {"text": "hello"})
        status, kind, problem = await get(f"/records/{UUID(int=1)}")
        assert (status, kind, problem["type"]) == (404, "application/problem+json", "record_not_found"), problem
"""


def run(folder: Path, tail: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "served_app.py"
    script.write_text(APP + textwrap.dedent(tail), encoding="utf-8")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("EVENTIC_")}
    return subprocess.run(
        [sys.executable, script], env=bare | environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_app_launches_when_it_starts_and_drains_when_it_stops(migrated_url: str, tmp_path: Path) -> None:
    tail = """
        assert not Eventic.is_launched()
        asyncio.run(main())
        assert not Eventic.is_launched()
        assert events == [("own starts", True), ("own ends", True)], events
        assert (app.title, app.version) == ("served app", "3.1")
        asyncio.run(main())  # a server may start it again
    """
    ended = run(tmp_path, tail, EVENTIC_DATABASE_URL=migrated_url)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_launching_before_serving_is_harmless(migrated_url: str, tmp_path: Path) -> None:
    tail = """
        Eventic.launch()
        asyncio.run(main())
        assert Eventic.is_launched()  # whoever launched it stops it
        Eventic.shutdown()
        assert not Eventic.is_launched()
    """
    ended = run(tmp_path, tail, EVENTIC_DATABASE_URL=migrated_url)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_served_app_without_a_database_refuses_to_start(tmp_path: Path) -> None:
    tail = """
        try:
            asyncio.run(main())
        except ConfigurationError as error:
            print(error)
    """
    ended = run(tmp_path, tail)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "EVENTIC_DATABASE_URL=embedded" in ended.stdout
    assert not (tmp_path / ".eventic").exists()


def test_everything_also_works_when_dbos_dispatches(migrated_url: str, tmp_path: Path) -> None:
    tail = """
        import time
        from eventic_core import later, on

        @on.create(Served)
        def noted(served: Served) -> None:
            served.text += ", noted"

        Eventic.launch()
        record = Served.hydrate(write_later("hello"))
        while Served.hydrate(record.id).version == 0:
            time.sleep(0.05)
        assert later(Served.hydrate(record.id).save).result(timeout_seconds=100) is None
        assert Served.hydrate(record.id).text == "hello, noted"
        assert [past.version for past in Served.hydrate(record.id).history()] == [1, 0]
        Eventic.shutdown()
    """
    ended = run(tmp_path, tail, EVENTIC_DATABASE_URL=migrated_url, EVENTIC_DISPATCHER="dbos")
    assert ended.returncode == 0, ended.stderr
