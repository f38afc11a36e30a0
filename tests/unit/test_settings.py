"""Settings: where each value comes from, which URLs and names are accepted, and that no password is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventic_core.errors import ConfigurationError
from eventic_core.settings import (
    URL_PLACES,
    Settings,
    libpq_url,
    normalise_url,
    resolve_database_url,
    safe_url,
    slug,
)

DBOS_NAME = re.compile(r"[a-z0-9\-_]{3,256}")
A = "postgresql+psycopg://a@host/db"
B = "postgresql+psycopg://b@host/db"


pytestmark = pytest.mark.usefixtures("bare_environment")


def test_defaults_need_no_environment() -> None:
    settings = Settings()
    assert (settings.name, settings.database_url, settings.database_source) == ("eventic", None, "nowhere")
    assert settings.auto_migrate
    assert settings.max_record_bytes == 1_048_576
    assert settings.embedded_directory == Path(".eventic")


def test_settings_are_read_from_prefixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTIC_POOL_SIZE", "3")
    monkeypatch.setenv("EVENTIC_AUTO_MIGRATE", "false")
    monkeypatch.setenv("EVENTIC_LOG_LEVEL", "debug")
    monkeypatch.setenv("EVENTIC_NAME", "")
    settings = Settings()
    assert (settings.pool_size, settings.auto_migrate, settings.log_level) == (3, False, "DEBUG")
    assert settings.name == "eventic"


def test_arguments_win_over_variables_and_variables_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("EVENTIC_POOL_SIZE=1\nEVENTIC_RECONNECT_SECONDS=2\nEVENTIC_NAME=file\n")
    monkeypatch.setenv("EVENTIC_POOL_SIZE", "3")
    monkeypatch.setenv("EVENTIC_NAME", "variable")
    settings = Settings(name="argument", pool_size=None)
    assert (settings.name, settings.pool_size, settings.reconnect_seconds) == ("argument", 3, 2.0)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().name = "other"


@pytest.mark.parametrize("in_file", [True, False])
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, *, in_file: bool
) -> None:
    if in_file:
        Path(".env").write_text("EVENTIC_POOLSIZE=1\n")
    else:
        monkeypatch.setenv("EVENTIC_POOLSIZE", "1")
    with pytest.raises(ConfigurationError, match=r"EVENTIC_POOLSIZE.*Did you mean EVENTIC_POOL_SIZE\?"):
        Settings()


def test_variables_of_tests_and_of_the_command_line_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTIC_TEST_DATABASE_URL", "x")
    monkeypatch.setenv("EVENTIC_APP", "shop.app")
    monkeypatch.setenv("OTHER", "x")
    assert Settings().database_url is None


def test_an_unknown_argument_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match=r"poolsize.*Did you mean pool_size\?"):
        Settings(poolsize=1)


def test_a_bad_value_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="argument pool_size"):
        Settings(pool_size=0)
    monkeypatch.setenv("EVENTIC_POOL_SIZE", "many")
    with pytest.raises(ConfigurationError, match="variable EVENTIC_POOL_SIZE"):
        Settings()


@pytest.mark.parametrize("first", range(len(URL_PLACES) + 1))
def test_the_database_url_comes_from_the_first_place_that_has_one(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    places = URL_PLACES[first:]
    for name in places:
        if name.endswith("URL"):
            monkeypatch.setenv(name, f"postgres://{name.lower()}@host/db")
    if "dbos-config.yaml" in places:
        Path("dbos-config.yaml").write_text("system_database_url: postgres://yaml@host/db\n")
    url, source = resolve_database_url("postgres://argument@host/db" if first == 0 else None)
    assert source == (places[0] if places else "nowhere")
    user = "yaml" if source == "dbos-config.yaml" else source.lower()
    assert url == (f"postgresql+psycopg://{user}@host/db" if places else None)


def test_the_settings_hold_the_resolved_url_as_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://me:hunter2@host/db")
    settings = Settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://me:hunter2@host/db"
    assert settings.database_source == "DATABASE_URL"
    assert "hunter2" not in f"{settings!r}{settings}{settings.model_dump_json()}"
    assert Settings(database_url=settings.database_url).database_source == "argument"


def test_a_real_variable_wins_over_the_file_and_an_empty_one_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DATABASE_URL=postgres://a@host/db\nDBOS_DATABASE_URL='postgres://b@host/db'\n")
    assert resolve_database_url() == (A, "DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL", "")
    assert resolve_database_url() == (B, "DBOS_DATABASE_URL")


def test_dbos_config_expands_variables_and_is_absent_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("dbos-config.yaml").write_text("name: shop\nsystem_database_url: postgres://${WHO}@host/db\n")
    assert resolve_database_url() == (None, "nowhere")
    monkeypatch.setenv("WHO", "a")
    assert resolve_database_url() == (A, "dbos-config.yaml")


@pytest.mark.parametrize("content", ["[1", "\x00", "system_database_url: mysql://me:hunter2@host/db"])
def test_a_bad_dbos_config_is_refused(content: str) -> None:
    Path("dbos-config.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"dbos-config\.yaml") as caught:
        resolve_database_url()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "- a", "system_database_url: 3", "system_database_url:", "name: shop"])
def test_a_dbos_config_without_a_url_counts_as_absent(content: str) -> None:
    Path("dbos-config.yaml").write_text(content)
    assert resolve_database_url() == (None, "nowhere")


def test_embedded_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTIC_DATABASE_URL", "embedded")
    assert resolve_database_url() == ("embedded", "EVENTIC_DATABASE_URL")
    assert Settings(database_url=A).database_source == "argument"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "POSTGRES"])
@pytest.mark.parametrize("rest", ["u:p%40w@host:5432/db?sslmode=require", "/db?host=/var/run", "[::1]:5432/db", "host"])
def test_urls_of_postgres_are_normalised(scheme: str, rest: str) -> None:
    assert normalise_url(f" {scheme}://{rest}\n") == f"postgresql+psycopg://{rest}"
    assert normalise_url(normalise_url(f"{scheme}://{rest}")) == f"postgresql+psycopg://{rest}"
    assert libpq_url(f"{scheme}://{rest}") == f"postgresql://{rest}"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hunter2@host/db",
        "sqlite:///file",
        "postgresql+asyncpg://me:hunter2@host/db",
        "postgresql://me:hunter2@host:port/db",
        "postgresql://me:hunter2#x@host/db",
        "postgresql://me:hunter2/x@host/db",
        "postgresql://me:hunter2?x@host/db",
        "postgresql://me:hunter2@x@host/db",
        "postgresql://me:hunter2",
        "postgresql://host:1,other:2/db",
        "postgresql://host:99999/db",
        "postgresql://[host/db",
        "host=x password=hunter2",
        "",
    ],
)
def test_other_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        normalise_url(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text("ab:/?#@%[]1", min_size=0, max_size=8), st.text("ab:/?#@%[]1", max_size=8))
def test_safe_url_never_shows_a_password(before: str, after: str) -> None:
    assert "hunter2" not in safe_url(f"postgresql://me:{before}hunter2{after}@host:5432/db")
    assert "hunter2" not in safe_url("postgresql://host/db?password=hunter2&x=1")


def test_safe_url_keeps_the_rest() -> None:
    assert safe_url("postgresql://me:hunter2@host:5432/db?x=1") == "postgresql://me:***@host:5432/db?x=1"
    assert safe_url("postgresql://host:5432/db") == "postgresql://host:5432/db"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Order Service", "order-service"),
        ("Café\u2011Zürich", "cafe-zurich"),
        ("Straße", "strasse"),
        ("my_app", "my_app"),
        ("--a -- b--", "a-b"),
        ("x", "x-app"),
        ("1", "1-app"),
        ("demo \u2014 v2.1", "demo-v2-1"),
        ("\ufb01x", "fix"),
        ("\u0130stanbul", "istanbul"),
    ],
)
def test_slug(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize("name", ["", "-", "__", "東京", "\u0301"])
def test_slug_refuses_a_name_without_letters_or_digits(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no letter or digit"):
        slug(name)


def test_slugs_of_long_names_stay_apart() -> None:
    assert slug("a" * 256) == "a" * 256
    assert slug("a" * 300) != slug("a" * 301)
    assert len(slug("a" * 300)) == 256


@given(st.text(max_size=300), st.sampled_from("aZ9é"))
def test_slug_always_gives_a_name_dbos_accepts_and_is_idempotent(text: str, letter: str) -> None:
    result = slug(text + letter)
    assert DBOS_NAME.fullmatch(result)
    assert slug(result) == result
