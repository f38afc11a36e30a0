"""The embedded Postgres: who keeps it alive, what it survives, and what it leaves alone. Real processes throughout."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
import psycopg
import pytest
from conftest import until

from eventic_core.errors import ConfigurationError, StoreUnavailable
from eventic_core.store import _keeper, embedded
from eventic_core.store.embedded import EmbeddedServer, start_embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = os.geteuid() == 0
DEADLINE_SECONDS = 100
REPOSITORY = Path(__file__).parents[2]
USER = """
import json, os, sys
from pathlib import Path
from eventic_core.store import embedded
embedded.FALLBACK_ROOT = Path(sys.argv[2])
server = embedded.start_embedded(Path(sys.argv[1]))
if sys.argv[3] == "fork" and os.fork():
    os._exit(0)
print(json.dumps([server.url, str(server.data_dir)]), flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the server below a folder until it is told to go."""

    def __init__(self, directory: Path, *, how: str = "plain") -> None:
        command = [sys.executable, "-c", USER, str(directory), str(embedded.FALLBACK_ROOT), how]
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def server(self) -> EmbeddedServer:
        """Wait until it has the server."""
        assert self.process.stdout is not None
        url, data_dir = json.loads(self.process.stdout.readline() or '["", ""]')
        assert url, "the user's process ended without a server"
        return EmbeddedServer(url, Path(data_dir))

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that user nobody can enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="eventic-test-", dir="/tmp")).resolve()
    made.chmod(0o755)
    held_before = set(embedded._held)  # the other tests' server may run in this process too
    yield made
    for data_dir, server in list(embedded._held.items()):
        if data_dir not in held_before:
            server.handle.release()
    until(lambda: not processes(made))
    shutil.rmtree(made)


@pytest.fixture(autouse=True)
def fallback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the folder in /var/lib; not there at first."""
    monkeypatch.setattr(embedded, "FALLBACK_ROOT", folder / "fallback")
    return folder / "fallback"


@pytest.fixture
def directory(folder: Path) -> Path:
    (folder / "project").mkdir(mode=0o755)
    return folder / "project" / ".eventic"


def processes(below: Path, kind: str = "") -> list[psutil.Process]:
    """The living keepers and servers (not their children) whose folder is somewhere below."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        text = " ".join(command)
        ours = str(below) in text and ("_keeper.py" in text or "bin/postgres" in text or "bin/initdb" in text)
        if ours and kind in text and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def run(server: EmbeddedServer, statement: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def started_at(server: EmbeddedServer) -> object:
    return run(server, "SELECT pg_postmaster_start_time()")


def kill_one(below: Path, kind: str) -> None:
    (process,) = processes(below, kind)
    process.kill()
    until(lambda: process not in processes(below, kind))


def modes(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Permissions and owner of a folder and all above it."""
    return {p: (p.stat().st_mode, p.stat().st_uid, p.stat().st_gid) for p in (path, *path.parents)}


def test_server_keeps_its_data_from_one_run_to_the_next(folder: Path, directory: Path) -> None:
    with User(directory) as first:
        server = first.server()
        assert run(server, "SELECT current_database()") == "eventic"
        before = started_at(server)
        run(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        first.leave()
    until(lambda: not processes(folder))
    with User(directory) as second:
        server = second.server()
        assert started_at(server) != before
        assert run(server, "SELECT answer FROM kept") == 42
        assert server.data_dir == directory / "postgres" / "data"


def test_server_is_shared_and_lives_as_long_as_either_user(folder: Path, directory: Path) -> None:
    with User(directory) as first, User(directory) as second:
        one, other = first.server(), second.server()
        assert one == other
        before = started_at(one)
        assert len(processes(folder, "bin/postgres")) == 1
        first.leave()
        time.sleep(0.3)  # enough for a keeper that takes one leaving user for all of them
        assert started_at(other) == before
        second.leave()
        until(lambda: not processes(folder))


def test_server_goes_away_when_its_user_is_killed(folder: Path, directory: Path) -> None:
    with User(directory) as user:
        user.server()
        assert processes(folder, "bin/postgres")
        user.kill()
        until(lambda: not processes(folder))


def test_server_of_a_killed_keeper_is_adopted_by_the_next_user(folder: Path, directory: Path) -> None:
    with User(directory) as first, User(directory) as second:
        before = started_at(first.server())
        second.server()
        kill_one(folder, "_keeper.py")
        with User(directory) as third:
            assert started_at(third.server()) == before
            assert len(processes(folder, "_keeper.py")) == 1
            for user in (first, second, third):
                user.leave()
            until(lambda: not processes(folder))


def test_server_of_a_killed_keeper_without_users_is_stopped_after_the_next(folder: Path, directory: Path) -> None:
    with User(directory) as first:
        first.server()
        kill_one(folder, "_keeper.py")
    assert processes(folder, "bin/postgres")
    with User(directory) as second:
        second.server()
        second.leave()
        until(lambda: not processes(folder))


def test_killed_postgres_is_started_again_for_its_users(folder: Path, directory: Path) -> None:
    with User(directory) as first:
        server = first.server()
        before = started_at(server)
        run(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        kill_one(folder, "bin/postgres")
        with User(directory) as second:
            assert second.server() == server
            assert started_at(server) != before
            assert run(server, "SELECT answer FROM kept") == 42
            assert len(processes(folder, "bin/postgres")) == 1


def test_postgres_that_is_killed_again_while_it_starts_is_started_again(folder: Path, directory: Path) -> None:
    server = start_embedded(directory)
    for _ in range(3):
        (process,) = until(lambda: processes(folder, "bin/postgres"))
        process.kill()
        process.wait(DEADLINE_SECONDS)
    assert until(lambda: answers(server))


def answers(server: EmbeddedServer) -> bool:
    try:
        return run(server, "SELECT 1") == 1
    except psycopg.OperationalError:
        return False


def test_killed_postgres_and_keeper_do_not_prevent_the_next_start(folder: Path, directory: Path) -> None:
    handle = start_embedded(directory)
    run(handle, "CREATE TABLE kept AS SELECT 42 AS answer")
    kill_one(folder, "_keeper.py")
    kill_one(folder, "bin/postgres")
    assert start_embedded(directory) is handle
    assert run(handle, "SELECT answer FROM kept") == 42


def test_stale_process_number_of_another_program_does_not_prevent_the_start(folder: Path, directory: Path) -> None:
    with User(directory) as first:
        data = first.server().data_dir
        first.leave()
    until(lambda: not processes(folder))
    owner = (data.stat().st_uid, data.stat().st_gid) if ROOT else None
    with subprocess.Popen(["sleep", "600"], **_keeper.run_as(owner)) as other:
        try:
            for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
                (data / name).write_text(f"{other.pid}\n{data}\n0\n5432\n\n\n\n\n")
                if owner:
                    os.chown(data / name, *owner)
            with User(directory) as second:
                assert run(second.server(), "SELECT 1") == 1
        finally:
            other.kill()


def test_interrupted_initdb_does_not_prevent_the_next_start(folder: Path, directory: Path) -> None:
    base = directory / "postgres"
    with User(directory) as first:
        until(lambda: any(base.glob("initdb-*/PG_VERSION")))
        first.kill()
        for process in processes(folder):
            process.kill()
    assert not (base / "data").exists()
    with User(directory) as second:
        assert run(second.server(), "SELECT 1") == 1
        assert not list(base.glob("initdb-*"))


def test_user_who_comes_while_the_keeper_stops_gets_a_lasting_server(directory: Path) -> None:
    for pause_seconds in (0.0, 0.005, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15):
        with User(directory) as first:
            first.server()
            first.kill()
            time.sleep(pause_seconds)
            handle = start_embedded(directory)
            began = started_at(handle)
            time.sleep(0.3)  # longer than a stop takes
            assert started_at(handle) == began
            handle.release()


def test_users_who_start_at_once_get_one_server(folder: Path, directory: Path) -> None:
    users = [User(directory) for _ in range(4)]
    try:
        assert len({started_at(user.server()) for user in users}) == 1
        assert len(processes(folder, "bin/postgres")) == len(processes(folder, "_keeper.py")) == 1
    finally:
        for user in users:
            user.kill()


def test_forked_child_keeps_the_server(folder: Path, directory: Path) -> None:
    with User(directory, how="fork") as user:
        server = user.server()  # told by the child
        user.process.wait(DEADLINE_SECONDS)
        time.sleep(0.3)
        assert run(server, "SELECT 1") == 1
        user.leave()
        until(lambda: not processes(folder))


def test_release_stops_the_server_once_and_allows_another_start(folder: Path, directory: Path) -> None:
    handle = start_embedded(directory)
    assert start_embedded(directory / "..") is not handle
    assert start_embedded(directory) is handle
    handle.release()
    handle.release()
    until(lambda: not processes(directory))
    again = start_embedded(directory)
    handle.release()  # a handle of before holds nothing
    time.sleep(0.3)
    assert run(again, "SELECT 1") == 1
    assert processes(folder, "bin/postgres")


def test_permissions_above_a_closed_project_stay(
    folder: Path, directory: Path, fallback: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.mkdir()
    directory.parent.chmod(0o700)
    before = modes(directory)
    with caplog.at_level(logging.INFO, logger="eventic"):
        handle = start_embedded(directory)
    assert run(handle, "SELECT 1") == 1
    assert modes(directory) == before
    if ROOT:
        assert handle.data_dir.parent.parent == fallback
        assert handle.data_dir.parent.name.startswith("project-")
        assert str(handle.data_dir) in caplog.text
        assert handle.data_dir.stat().st_mode & 0o777 == 0o700
        assert handle.data_dir.owner() == "nobody"
        directory.parent.chmod(0o755)
        assert start_embedded(directory) is handle, "data that once are elsewhere stay there"
    else:
        assert handle.data_dir == directory / "postgres" / "data"
        assert not fallback.exists()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700])
def test_folder_of_the_user_keeps_its_mode(directory: Path, mode: int) -> None:
    directory.mkdir()
    directory.chmod(mode)
    before = modes(directory)
    handle = start_embedded(directory)
    assert modes(directory) == before
    assert (directory in handle.data_dir.parents) is (not ROOT or bool(mode & 0o001))


def test_data_that_can_no_longer_be_reached_are_not_replaced_by_empty_ones(folder: Path, directory: Path) -> None:
    handle = start_embedded(directory)
    handle.release()
    until(lambda: not processes(folder))
    directory.parent.chmod(0o700)
    if ROOT:
        with pytest.raises(ConfigurationError, match="can no longer reach"):
            start_embedded(directory)
    else:
        assert start_embedded(directory) == handle


def test_no_place_for_root_is_a_configuration_error(directory: Path, fallback: Path) -> None:
    directory.mkdir()
    directory.chmod(0o700)
    fallback.mkdir(mode=0o700)
    if ROOT:
        with pytest.raises(ConfigurationError, match="no place where user nobody"):
            start_embedded(directory)
        assert fallback.stat().st_mode & 0o777 == 0o700
    else:
        assert run(start_embedded(directory), "SELECT 1") == 1


def test_binaries_out_of_reach_are_copied_for_root(
    folder: Path, directory: Path, fallback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = embedded._installed_packages()
    closed = folder / "closed"
    for part in (f"{embedded.PACKAGE}/{embedded.INSTALLATION}", f"{embedded.PACKAGE}.libs"):
        shutil.copytree(installed / part, closed / part, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(embedded, "_installed_packages", lambda: closed)
    assert run(start_embedded(directory), "SELECT 1") == 1
    (server,) = processes(folder, "bin/postgres")
    assert closed.stat().st_mode & 0o777 == 0o700
    place = fallback if ROOT else closed
    assert server.cmdline()[0].startswith(f"{place}/")
    assert [p.name for p in fallback.glob("copy-*")] == []


def test_folder_of_another_user_is_refused(directory: Path) -> None:
    base = directory / "postgres"
    base.mkdir(parents=True)
    if ROOT:
        os.chown(base, 12345, 12345)
    else:
        directory.chmod(0o500)
        base.chmod(0o500)
    with pytest.raises(ConfigurationError, match=r"another user|cannot use its files"):
        start_embedded(directory)
    assert list(base.iterdir()) == []
    directory.chmod(0o755)
    base.chmod(0o755)


@pytest.mark.parametrize("name", ["x" * 100, "a space, 100% & more"])
def test_path_unfit_for_a_socket_gets_a_private_socket_folder(folder: Path, name: str) -> None:
    handle = start_embedded(folder / name)
    socket_dir = Path(str(run(handle, "SHOW unix_socket_directories")))
    assert run(handle, "SELECT 1") == 1
    assert handle.data_dir == folder / name / "postgres" / "data"
    assert socket_dir.parent == Path("/tmp")
    assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert socket_dir.stat().st_uid == handle.data_dir.stat().st_uid
    handle.release()
    until(lambda: not processes(folder))
    shutil.rmtree(socket_dir)


def test_open_socket_folder_made_by_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keeper, "SOCKET_PATH_BYTES", 1)
    monkeypatch.setattr(_keeper, "SOCKET_ROOT", folder)
    made = _keeper.socket_folder(folder / "data", None)
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    with pytest.raises(PermissionError, match="not a private folder"):
        _keeper.socket_folder(folder / "data", None)
    made.rmdir()
    made.symlink_to(folder)
    with pytest.raises(PermissionError, match="not a private folder"):
        _keeper.socket_folder(folder / "data", None)


def test_server_that_cannot_start_says_why(folder: Path, directory: Path) -> None:
    handle = start_embedded(directory)
    handle.release()
    until(lambda: not processes(folder))
    (handle.data_dir / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(StoreUnavailable, match=r"(?s)keeper gave up.*not compatible"):
        start_embedded(directory)
    (handle.data_dir / "PG_VERSION").write_text("18\n")
    assert run(start_embedded(directory), "SELECT 1") == 1


def test_server_is_reached_by_its_socket_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    handle = start_embedded(directory)
    assert run(handle, "SHOW listen_addresses") == ""
    assert run(handle, "SHOW fsync") == "on"
    assert run(handle, "SHOW server_encoding") == "UTF8"
    assert handle.data_dir.stat().st_mode & 0o777 == 0o700


def test_log_over_its_limit_is_set_aside(folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = start_embedded(directory)
    log = handle.data_dir.with_name("log")
    written = log.read_text()
    handle.release()
    until(lambda: not processes(folder))
    monkeypatch.setattr(embedded, "LOG_BYTES", 10)
    start_embedded(directory)
    assert log.with_name("log.old").read_text().startswith(written)
    assert "initdb" not in log.read_text()


def test_missing_extra_is_a_configuration_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r'pip install "eventic-core\[embedded\]".*EVENTIC_DATABASE_URL'):
        start_embedded(directory)
    assert not directory.exists()


def test_other_platform_is_a_configuration_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigurationError, match="needs Linux or macOS"):
        start_embedded(directory)
