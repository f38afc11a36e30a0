"""Roles, principals and tokens: who is found by what they present, and what a setting may say."""

from __future__ import annotations

import hashlib
import http.client

import pytest

from eventic_core import ConfigurationError
from eventic_core.operations.access import Principal, Role, Tokens
from eventic_core.operations.health_server import HealthServer

TOKEN = "correct-horse-battery"
DIGEST = hashlib.sha256(b"another-long-token").hexdigest()


def test_each_role_may_do_what_those_before_it_may() -> None:
    may = [[role.allows(needed) for needed in Role] for role in Role]
    assert may == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_token_is_found_as_it_is_or_by_its_digest() -> None:
    tokens = Tokens.parse(f"ada:admin:{TOKEN}, grafana:read:sha256:{DIGEST},")
    assert tokens.find(TOKEN) == Principal("ada", Role.ADMIN)
    assert tokens.find("another-long-token") == Principal("grafana", Role.READ)
    assert [tokens.find(wrong) for wrong in ("", TOKEN[:-1], TOKEN + "x", DIGEST, f"sha256:{DIGEST}")] == [None] * 5
    assert tokens.find_in_header(f"bearer  {TOKEN}") == Principal("ada", Role.ADMIN)
    for wrong in (None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer " + "é" * 5000):
        assert tokens.find_in_header(wrong) is None


def test_tokens_are_shown_nowhere() -> None:
    tokens = Tokens.parse(f"ada:admin:{TOKEN},bob:read:{TOKEN}2")
    assert repr(tokens) == "Tokens(ada:admin, bob:read)"
    assert TOKEN not in str(vars(tokens))
    assert not Tokens.parse(" , ")


@pytest.mark.parametrize(
    "setting",
    [
        TOKEN,
        f"ada:{TOKEN}",
        f"ada:owner:{TOKEN}",
        f":read:{TOKEN}",
        f"a b:read:{TOKEN}",
        "ada:read:too-short",
        f"ada:read:sha256:{TOKEN}",
        f"ada:read:{TOKEN},bob:read:{TOKEN}",
        f"ada:read:{'x' * 2000}",
    ],
)
def test_a_setting_that_is_not_of_the_form_is_refused_without_being_shown(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="api_tokens") as refused:
        Tokens.parse(setting)
    assert TOKEN not in str(refused.value)
    assert "xxx" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "role"), [("", Role.READ), ("a\nb", Role.READ), ("x" * 101, Role.READ), ("a", "root")]
)
def test_a_principal_has_a_name_and_a_role(name: str, role: Role) -> None:
    with pytest.raises(ConfigurationError):
        Principal(name, role)
    assert Principal("ada", "admin").role is Role.ADMIN  # type: ignore[arg-type]


def ask(port: int, path: str, **headers: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("WWW-Authenticate")
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.7", "worker.internal"])
def test_a_worker_serves_no_other_machine_without_tokens(host: str) -> None:
    with pytest.raises(ConfigurationError, match="EVENTIC_API_TOKENS"):
        HealthServer(0, host=host)


def test_a_worker_with_tokens_serves_whoever_has_one() -> None:
    server = HealthServer(0, host="0.0.0.0", tokens=f"grafana:read:sha256:{DIGEST}")
    port = server.start()
    try:
        for path in ("/livez", "/readyz", "/metrics", "/nothing"):
            assert ask(port, path) == (401, "Bearer")
            assert ask(port, path, Authorization=f"Bearer {TOKEN}") == (401, "Bearer")
        assert ask(port, "/livez", Authorization="Bearer another-long-token") == (200, None)
    finally:
        server.stop()
