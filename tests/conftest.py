"""A real Postgres for every test: EVENTIC_TEST_DATABASE_URL if set, else an embedded server of the session's own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from eventic_core import Eventic
from eventic_core.runtime import adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no timing is asserted
settings.load_profile("tests")
for _name in ("EVENTIC_DATABASE_URL", "DATABASE_URL", "DBOS_DATABASE_URL"):
    os.environ.pop(_name, None)


def with_database(url: str, name: str) -> str:
    """Give a server's URL for another database of it."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def execute(url: str, *statements: str) -> None:
    """Run statements in autocommit."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(url: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Give the rows of a query."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(sql.encode(), parameters or None).fetchall()


def until(find: Callable[[], T], what: str = "what is waited for", *, seconds: float = 100) -> T:
    """Wait until something is found that is not empty, and give it."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)
    return found


def make_open_folder() -> Path:
    """Make a folder that user nobody can enter, whom root runs the embedded server as; unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="eventic-tests-"))
    folder.chmod(0o755)
    return folder


def remove_when_stopped(folder: Path) -> None:
    """Remove a folder once the embedded server in it has stopped, which follows its last user's end."""
    deadline = time.monotonic() + 100
    while list(folder.glob("**/postmaster.pid")):
        assert time.monotonic() < deadline, f"a server still runs in {folder}"
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and no variable that names a setting or a database."""
    for name in os.environ:
        if name.startswith("EVENTIC_") or name.endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder for an embedded server of the test's own."""
    folder = make_open_folder()
    yield folder
    remove_when_stopped(folder)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A Postgres server."""
    named = os.environ.get("EVENTIC_TEST_DATABASE_URL")
    if named:
        yield named
        return
    from eventic_core.store.embedded import start_embedded

    folder = make_open_folder()
    server = start_embedded(folder)
    yield server.url
    server.release()
    remove_when_stopped(folder)


@contextmanager
def new_database(server_url: str, template: str = "template0") -> Iterator[str]:
    """Make a database for a while, as a copy of one, named or by its URL, that nobody is connected to."""
    name = f"test_{uuid4().hex[:12]}"
    execute(server_url, f"create database {name} template {urlsplit(template).path.removeprefix('/')}")
    try:
        yield with_database(server_url, name)
    finally:
        execute(server_url, f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """A database with the tables, which tests copy."""
    with new_database(server_url) as url:
        Eventic.init(name="template", database_url=url)
        Eventic.shutdown()
        yield url


@pytest.fixture(scope="session")
def prepared(server_url: str, template: str) -> Iterator[str]:
    """A database with our tables and DBOS's, which tests copy."""
    with new_database(server_url, template) as url:
        adapter.migrate(url)
        yield url


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """An empty database of the test's own."""
    with new_database(server_url) as url:
        yield url


@pytest.fixture
def migrated_url(server_url: str, template: str) -> Iterator[str]:
    """A database of the test's own, with the tables."""
    with new_database(server_url, template) as url:
        yield url


@pytest.fixture
def eventic(migrated_url: str) -> Iterator[str]:
    """Records connected to a database of the test's own; gives its URL."""
    Eventic.init(name="tests", database_url=migrated_url)
    yield migrated_url
    Eventic.shutdown()


@pytest.fixture(scope="module")
def workers(server_url: str, template: str) -> Iterator[str]:
    """Workers of this process on a database that a module's tests share, for starting them takes long."""
    with new_database(server_url, template) as url:
        Eventic.init(name="tests", database_url=url)
        Eventic.launch()
        yield url
        Eventic.shutdown()


@pytest.fixture
def own_server() -> Iterator[tuple[str, Path]]:
    """A server of the test's own that may be killed: its URL and data directory."""
    from eventic_core.store.embedded import start_embedded

    folder = make_open_folder()
    server = start_embedded(folder)
    try:
        yield server.url, server.data_dir
    finally:
        server.release()
        remove_when_stopped(folder)
