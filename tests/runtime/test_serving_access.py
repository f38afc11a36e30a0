"""The package's routes: who is let in, what is refused before it is read, and what an operator leaves on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from conftest import new_database
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from eventic_core import Eventic
from eventic_core.operations import OperatorAct
from eventic_core.operations.queues import paused_queues
from eventic_core.runtime.adapter import migrate as migrate_dbos
from eventic_core.serving import Principal, Role, create_app, health_routes, operation_routes, run_routes
from eventic_core.serving.access import is_local, is_loopback
from eventic_core.serving.limits import JsonDepth
from eventic_core.serving.problems import Refusal

READER, OPERATOR, ADMIN = "reader-token-0123456789", "operator-token-0123456789", "admin-token-0123456789"
TOKENS = f"rita:read:{READER},otto:operate:{OPERATOR},ada:admin:{ADMIN}"
LOCAL: dict[str, Any] = {"base_url": "http://localhost", "client": ("127.0.0.1", 1)}
NOTHING = uuid4()


@pytest.fixture(scope="module")
def database(server_url: str, template: str) -> Iterator[str]:
    with new_database(server_url, template) as url:
        migrate_dbos(url)
        yield url


@pytest.fixture
def connected(database: str) -> Iterator[str]:
    """Connected, with tokens."""
    Eventic.init(name="access", database_url=database, api_tokens=TOKENS, max_body_bytes=2000)
    yield database
    Eventic.shutdown()


@pytest.fixture
def unprotected(database: str) -> Iterator[str]:
    """Connected, without any token."""
    Eventic.init(name="access", database_url=database)
    yield database
    Eventic.shutdown()


def application(**options: Any) -> FastAPI:
    """An app with all routes of the package, and one of its own."""
    app = create_app("access", start=lambda: None, stop=lambda: None, is_launched=lambda: True, **options)
    for routes in (run_routes(), health_routes(), operation_routes()):
        app.include_router(routes)

    @app.post("/own")
    def own(body: dict[str, Any]) -> int:
        return len(body)

    @app.get("/own/{number}")
    def numbered(number: int) -> int:
        return number

    return app


def client(app: FastAPI | None = None, token: str | None = None, **options: Any) -> TestClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(app or application(), headers=headers, **{**LOCAL, **options})


def routes() -> list[tuple[str, str, Role]]:
    """All routes of the package, with the role each needs."""
    acts = [(f"/queues/x/{act}", Role.OPERATE) for act in ("pause", "resume")]
    acts += [(f"/runs/{NOTHING}/{act}", Role.OPERATE) for act in ("cancel", "resume")]
    acts += [(f"/dead-letters/{NOTHING}/retry", Role.OPERATE), (f"/dead-letters/{NOTHING}/discard", Role.ADMIN)]
    acts += [("/workers/x/drain", Role.ADMIN)]
    lists = ["/livez", "/readyz", "/metrics", f"/runs/{NOTHING}/progress", f"/runs/{NOTHING}/watch", "/workers"]
    lists += ["/queues", "/dead-letters", "/runs", f"/runs/{NOTHING}", "/acts", "/retention/plan"]
    return [("GET", path, Role.READ) for path in lists] + [("POST", path, role) for path, role in acts]


def test_no_route_of_the_package_is_left_out_here(connected: str) -> None:
    known = {(method, path.replace(str(NOTHING), "{}").replace("/x/", "/{}/")) for method, path, _ in routes()}
    found = set()
    for path, methods in application().openapi()["paths"].items():
        plain = "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
        found |= {(method.upper(), plain) for method in methods}
    assert found - {("POST", "/own"), ("GET", "/own/{}")} == known


def test_each_route_needs_to_know_who_calls_and_a_role(connected: str) -> None:
    app, before = application(), OperatorAct.where().count()
    for token, role in ((None, None), ("wrong", None), (READER, Role.READ), (OPERATOR, Role.OPERATE)):
        http = client(app, token)
        for method, path, needed in routes():
            if role is not None and role.allows(needed):
                continue
            response = http.request(method, path, content=b"[" * 100)
            problem = response.json()
            assert response.headers["content-type"] == "application/problem+json"
            if role is None:
                assert (response.status_code, problem["type"]) == (401, "not_authenticated"), path
                assert response.headers["www-authenticate"] == "Bearer"
            else:
                assert (response.status_code, problem["type"]) == (403, "role_too_low"), path
                assert str(needed) in problem["detail"]
    assert OperatorAct.where().count() == before


def test_the_app_may_say_who_calls_in_its_own_way(connected: str) -> None:
    async def by_header(request: Request) -> Principal | None:
        name = request.headers.get("x-user")
        return Principal(name, Role.READ) if name else None

    http = client(application(authenticate=by_header))
    assert http.get("/workers").status_code == 401
    assert http.get("/workers", headers={"Authorization": f"Bearer {ADMIN}"}).status_code == 401  # one way, not two
    assert http.get("/workers", headers={"X-User": "eve"}).json() == {"workers": []}
    assert http.post("/queues/q/pause", headers={"X-User": "eve"}).status_code == 403
    app = FastAPI()  # one that create_app did not make; routes may be given a way of their own
    app.include_router(operation_routes(authenticate=lambda _: Principal("own", Role.READ)))
    assert set(client(app).get("/queues").json()) == {"queues", "paused"}
    assert client(app).get("/nothing").status_code == 404


def test_what_authenticates_lets_nobody_in_by_mistake(connected: str) -> None:
    http = client(application(authenticate=lambda _: True), raise_server_exceptions=False)
    response = http.get("/workers")
    assert (response.status_code, response.text) == (500, "Internal Server Error")


def test_acts_are_on_record_by_who_called_and_done_once_for_a_key(connected: str) -> None:
    queue = f"q-{uuid4().hex[:6]}"
    http, key = client(token=OPERATOR), {"Idempotency-Key": f"k-{queue}"}
    assert http.post(f"/queues/{queue}/pause", json={"reason": "full"}, headers=key).json() == {"changed": True}
    assert paused_queues()[queue].paused_by == "otto"
    assert http.post(f"/queues/{queue}/pause", json={"reason": "full"}, headers=key).json() == {"changed": False}
    other = http.post(f"/queues/{queue}/resume", headers=key)
    assert (other.status_code, other.json()["type"]) == (409, "conflict")
    assert http.post(f"/queues/{queue}/resume").json() == {"changed": True}
    newest, before = http.get("/acts", params={"limit": 1}).json()["acts"], ""
    assert (newest[0]["act"], newest[0]["target"], newest[0]["actor"]) == ("queue.resume", queue, "otto")
    before = newest[0]["id"]
    older = http.get("/acts", params={"limit": 1, "before": before}).json()["acts"][0]
    assert (older["act"], older["reason"]) == ("queue.pause", "full")
    assert f"k-{queue}" not in json.dumps([newest, older])


def test_runs_are_steered_on_record_and_shown_without_payloads(connected: str) -> None:
    run = Eventic.queue("access_idle").enqueue(waiting_step, "payload-marker", delay_seconds=3600)
    http = client(token=OPERATOR)
    key = {"Idempotency-Key": run.id}
    for _ in range(2):
        assert http.post(f"/runs/{run.id}/cancel", headers=key).json() == {"status": "CANCELLED"}
    assert http.post(f"/runs/{run.id}/resume", json={"reason": "again"}).json() == {"status": "ENQUEUED"}
    acts = OperatorAct.where(OperatorAct.fields.target == run.id).order_by(OperatorAct.fields.id).all()
    assert [(act.act, act.stamp.actor, act.stamp.reason) for act in acts] == [
        ("run.cancel", "otto", "run.cancel"),
        ("run.resume", "otto", "again"),
    ]
    shown = http.get(f"/runs/{run.id}")
    assert (shown.json()["status"], "payload-marker" in shown.text) == ("ENQUEUED", False)
    assert [one["id"] for one in http.get("/runs", params={"queue": "access_idle", "limit": 1}).json()["runs"]] == [
        run.id
    ]
    problem = http.post(f"/runs/{NOTHING}/cancel")
    assert (problem.status_code, problem.json()["type"]) == (404, "run_not_found")
    assert OperatorAct.where(OperatorAct.fields.target == str(NOTHING)).count() == 0  # what is refused leaves no act


@Eventic.step(name="access.step")
def waiting_step(text: str) -> str:
    return text


# -- this machine, and no other


def scope(client: Any = ("127.0.0.1", 1), server: Any = ("127.0.0.1", 80)) -> dict[str, Any]:
    return {"client": client, "server": server}


@pytest.mark.parametrize(
    ("given", "headers", "local"),
    [
        (scope(), {"host": "localhost:80"}, True),
        (scope(("::1", 1), ("::1", 80)), {"host": "[::1]:80"}, True),
        (scope(("::ffff:127.0.0.1", 1)), {"host": "127.0.0.1", "origin": "http://localhost:3000"}, True),
        (scope(("10.0.0.7", 1)), {"host": "localhost"}, False),
        (scope(server=("10.0.0.7", 80)), {"host": "localhost"}, False),
        (scope(("0.0.0.0", 1)), {"host": "localhost"}, False),
        (scope(client=None), {"host": "localhost"}, False),  # a unix socket, behind which anybody may be
        (scope(server=("/run/app.sock", None)), {"host": "localhost"}, False),
        (scope(), {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        (scope(), {"host": "localhost", "forwarded": "for=127.0.0.1"}, False),
        (scope(), {"host": "localhost", "via": "1.1 proxy"}, False),
        (scope(), {"host": "shop.example"}, False),  # a proxy, or a name that a page made point here
        (scope(), {}, False),
        (scope(), {"host": "localhost", "origin": "https://evil.example"}, False),
        (scope(), {"host": "localhost", "origin": "null"}, False),
        (scope(), {"host": "[oops"}, False),
    ],
)
def test_a_request_is_local_only_if_nothing_says_otherwise(given: Any, headers: dict[str, str], local: bool) -> None:
    assert is_local(given, headers) is local


def test_without_authentication_only_this_machine_is_answered(unprotected: str) -> None:
    app = application()
    assert client(app).get("/workers").json() == {"workers": []}
    assert client(app).post("/queues/anybody/pause").json() == {"changed": True}
    assert client(app).get("/own/1").json() == 1
    for options in ({"client": ("10.1.2.3", 9)}, {"base_url": "http://10.1.2.3"}, {"base_url": "http://shop.example"}):
        for method, path, _ in routes():
            response = client(app, **options).request(method, path)
            assert (response.status_code, response.json()["type"]) == (403, "not_protected"), path
            assert "EVENTIC_API_TOKENS" in response.json()["detail"]
        assert client(app, **options).get("/own/1").json() == 1  # the app's own routes are the app's business
    assert not is_loopback("localhost.example")


# -- limits


def test_a_body_that_is_too_large_is_refused_while_it_comes(connected: str) -> None:
    app, sent = application(), []

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            sent.append(1)
            yield b" " * 500

    for path in ("/own", "/queues/q/pause"):
        http = client(app, token=OPERATOR)
        for content in (b" " * 2001, endless()):
            response = http.post(path, content=content, headers={"Content-Type": "application/json"})
            assert (response.status_code, response.json()["type"]) == (413, "body_too_large"), path
            assert response.headers["content-type"] == "application/problem+json"
        assert http.post("/own", json={"a": "x" * 1900}).json() == 1


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_is_too_deep_is_refused(connected: str, opening: str) -> None:
    app = application()
    for path in ("/own", "/queues/q/pause"):
        response = client(app, token=OPERATOR).post(
            path, content=opening * 300, headers={"Content-Type": "application/json"}
        )
        assert (response.status_code, response.json()["type"]) == (400, "json_too_deep"), path


def test_depth_is_followed_through_texts_escapes_and_pieces() -> None:
    deep, flat = b"[" * 65, b'{"[[[[": "\\"[[[[\\\\", "a": []},' * 100
    for size in (1, 7, 10_000):
        follower = JsonDepth()
        for at in range(0, len(flat), size):
            follower.feed(flat[at : at + size])
        with pytest.raises(Refusal):
            follower.feed(deep)


@pytest.mark.parametrize("path", ["/workers", "/dead-letters", "/runs", "/acts"])
def test_a_page_has_a_largest_size(connected: str, path: str) -> None:
    http = client(token=READER)
    assert http.get(path, params={"limit": 500}).status_code == 200
    for limit in ("501", "0", "-1", "secret-marker"):
        response = http.get(path, params={"limit": limit})
        assert (response.status_code, response.json()["type"]) == (422, "invalid_request")
        assert response.headers["content-type"] == "application/problem+json"
        assert "secret-marker" not in response.text


def test_names_and_headers_have_a_largest_size_and_are_not_repeated(connected: str) -> None:
    http, long = client(token=OPERATOR), "secret-marker" * 100
    assert http.post(f"/queues/{long}/pause").status_code == 422
    assert http.post("/queues/q/pause", headers={"Idempotency-Key": long}).status_code == 422
    assert http.get("/acts", headers={"X-Long": long * 10}).status_code == 431
    for response in (
        http.post("/queues/q/pause", headers={"Idempotency-Key": long}),
        http.post("/queues/q/pause", json={"secret-marker": 1}),
        http.get("/runs", params={"name": long}),
        http.post("/dead-letters/secret-marker/retry"),
        http.get("/own/secret-marker"),
        http.post("/own", content=b'{"secret-marker"', headers={"Content-Type": "application/json"}),
    ):
        assert response.status_code == 422, response.text
        assert "secret-marker" not in response.text.replace("body.secret-marker", ""), response.text


def test_a_failure_of_the_database_is_told_without_where_it_is(connected: str) -> None:
    from eventic_core.errors import StoreUnavailable

    app = application()

    @app.get("/broken")
    def broken() -> None:
        raise StoreUnavailable("Postgres at postgresql://ada@db.internal does not answer")

    response = client(app).get("/broken")
    assert (response.status_code, response.json()["type"]) == (503, "unavailable")
    assert "internal" not in response.text
