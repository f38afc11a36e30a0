"""The detached process that runs one embedded Postgres for as long as any process uses it.

Owns the layout of the server's folder and the life of the server. Who still uses it is told by file locks alone, which
the kernel releases whatever way a process ends. Run by path, so it imports the standard library and nothing of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

if sys.platform != "win32":
    import fcntl

PORT = 5432  # only names the socket; the server never listens on TCP
SOCKET_NAME = f".s.PGSQL.{PORT}"
STOP_SECONDS = 30.0  # a fast shutdown that takes longer becomes an immediate one
SOCKET_ROOT = Path("/tmp")  # noqa: S108 - not tempfile's: processes with another TMPDIR must find the same socket
SOCKET_PATH_BYTES = 100  # the kernel's limit is 104 on macOS, 108 on Linux
POLL_SECONDS = 0.02
RESTART_SECONDS = 0.5  # between the death of a server and the next one, so that a crash loop stays cheap
READY = b"ready"
_OPTIONS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "logging_collector": "off",
    # Statements that fail are told to the client; in the log they would be the client's data, and endless.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


Owner = tuple[int, int]  # uid and gid


class Server(NamedTuple):
    """Where one server lives, and as whom it runs.

    Attributes:
        base: The folder that holds everything; made by us.
        binaries: The folder with `initdb`, `pg_ctl`, `pg_isready` and `postgres`.
        socket_dir: The folder of the Unix socket.
        owner: The user and group to run as, `None` to stay who we are.
    """

    base: str
    binaries: str
    socket_dir: str
    owner: Owner | None

    @property
    def data(self) -> Path:
        """The data directory, which exists only when it is complete."""
        return Path(self.base, "data")

    @property
    def log(self) -> Path:
        """What the server and its keeper wrote."""
        return Path(self.base, "log")

    @property
    def start_lock(self) -> Path:
        """Held exclusively by a process that starts the server or joins its users."""
        return Path(self.base, "start.lock")

    @property
    def users_lock(self) -> Path:
        """Shared by all users; exclusive in the keeper, once there are none and until the server has stopped."""
        return Path(self.base, "users.lock")

    @property
    def keeper_lock(self) -> Path:
        """Held exclusively by the keeper all its life; reads `ready` while the server accepts connections."""
        return Path(self.base, "keeper.lock")

    @property
    def server_lock(self) -> Path:
        """Inherited by every server process, so that it is free exactly when none is left."""
        return Path(self.base, "server.lock")

    def call(self, program: str, *arguments: str, quiet: bool = False) -> int:
        """Run one of the binaries to its end and return its exit code; its output goes to ours unless `quiet`."""
        output = subprocess.DEVNULL if quiet else None
        command = [str(Path(self.binaries, program)), *arguments]
        ended = subprocess.run(command, stdout=output, stderr=output, check=False, **run_as(self.owner))
        return ended.returncode


def run_as(owner: Owner | None) -> dict[str, Any]:
    """Give the `subprocess` arguments that run a program as that user, in a neutral place."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
    who = {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}
    return {"cwd": "/", "stdin": subprocess.DEVNULL, "env": env, **who}


def succeeds_as(owner: Owner, *command: str) -> bool:
    """Tell whether the command succeeds for that user: the kernel knows about ACLs and mounts, mode bits do not."""
    try:
        ended = subprocess.run(command, check=False, capture_output=True, **run_as(owner))
    except (OSError, subprocess.SubprocessError):
        return False
    return bool(ended.returncode == 0)


def may_enter(owner: Owner, folder: Path) -> bool:
    """Tell whether that user can get to what is in the folder."""
    return succeeds_as(owner, "/bin/sh", "-c", 'cd "$1"', "sh", str(folder))


def open_lock(path: Path) -> int:
    """Open a lock file, made if missing; never through a symbolic link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock without waiting; `False` when somebody holds it."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Free the lock even if a forked child still has the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def make_folder(path: Path, mode: int, owner: Owner | None = None) -> None:
    """Make one folder with exactly that mode and owner; one that exists is left as it is."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    path.chmod(mode)
    if owner is not None:
        os.chown(path, *owner)


def short_hash(path: Path) -> str:
    """Name a path in few characters."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def socket_folder(data: Path, owner: Owner | None) -> Path:
    """Choose a folder that only the server's user may enter, because any connection is trusted.

    Raises:
        PermissionError: Somebody else has made the folder of that name.
    """
    path = os.fsencode(data / SOCKET_NAME)
    # Other characters would need quoting in the URL and in Postgres' list of folders.
    if len(path) <= SOCKET_PATH_BYTES and re.fullmatch(rb"[A-Za-z0-9/._-]+", path):
        return data
    uid = owner[0] if owner else os.geteuid()
    folder = SOCKET_ROOT / f"eventic-{uid}-{short_hash(data)}"
    make_folder(folder, 0o700, owner)
    found = folder.lstat()
    if found.st_uid != uid or not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        raise PermissionError(f"{folder}, the place of its socket, is not a private folder of uid {uid}; remove it")
    return folder


class _Keeper:
    """Starts the server, starts it again when it dies, and stops it after its last user."""

    def __init__(self, server: Server, state: int) -> None:
        self._server = server
        self._state = state
        self._child: subprocess.Popen[bytes] | None = None
        self._has_run = False
        self._no_users = threading.Event()

    def run(self) -> None:
        """Return when the last user is gone and the server has stopped."""
        self._initialise()
        threading.Thread(target=self._stop_after_last_user, daemon=True).start()
        while self._start():
            os.pwrite(self._state, READY, 0)
            self._has_run = True
            self._wait_until_dead()
            os.ftruncate(self._state, 0)
            self._pause()

    def _pause(self) -> None:
        """Wait a little before the next start, of a server that died."""
        if not self._no_users.wait(RESTART_SECONDS):
            sys.stderr.write("keeper: the server died although it is in use; starting it again\n")

    def _initialise(self) -> None:
        """Make the data directory if there is none; it appears under its name only when complete."""
        for leftover in Path(self._server.base).glob("initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if self._server.data.exists():
            return
        unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self._server.base))
        if self._server.owner:
            os.chown(unfinished, *self._server.owner)
        arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        if code := self._server.call("initdb", *arguments, f"--pgdata={unfinished}"):
            raise RuntimeError(f"initdb ended with exit code {code}")
        unfinished.rename(self._server.data)

    def _start(self) -> bool:
        """Bring the server to accepting connections, adopting one that runs; `False` when nobody wants it any more."""
        launched = False
        pause = POLL_SECONDS
        # No deadline: recovery after a crash may be long, and ending it would only make the next one start over.
        while True:
            lock = open_lock(self._server.server_lock)
            try:
                if try_lock(lock):
                    if launched and not self._has_run:
                        raise RuntimeError("postgres ended before it accepted a connection")
                    if launched:  # killed before we saw it ready, or it cannot start as things are: they may change
                        self._pause()
                    if self._no_users.is_set():
                        return False
                    self._launch(lock)
                    launched = True
            finally:
                os.close(lock)
            target = ["-h", self._server.socket_dir, "-p", str(PORT), "-U", "postgres"]
            if self._server.call("pg_isready", *target, quiet=True) == 0:
                return True
            time.sleep(pause)
            pause = min(pause * 1.2, 10 * POLL_SECONDS)

    def _launch(self, lock: int) -> None:
        for folder, name in ((self._server.data, "postmaster.pid"), (self._server.socket_dir, f"{SOCKET_NAME}.lock")):
            _remove_if_stale(Path(folder, name))
        options = _OPTIONS | {"unix_socket_directories": self._server.socket_dir}
        command = [str(Path(self._server.binaries, "postgres")), "-D", str(self._server.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        self._reap()
        self._child = subprocess.Popen(command, pass_fds=[lock], **run_as(self._server.owner))

    def _wait_until_dead(self) -> None:
        lock = open_lock(self._server.server_lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.close(lock)
        self._reap()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _stop_after_last_user(self) -> None:
        lock = open_lock(self._server.users_lock)
        fcntl.flock(lock, fcntl.LOCK_EX)  # kept to the end of the process: no user comes in before the server is gone
        self._no_users.set()
        began = time.monotonic()
        # Again and again, because the main thread may be just starting a server; it ends the process.
        while True:
            mode = "fast" if time.monotonic() - began < STOP_SECONDS else "immediate"
            self._server.call("pg_ctl", "stop", "-D", str(self._server.data), "-m", mode, "-W", "-s", quiet=True)
            time.sleep(10 * POLL_SECONDS)


def _remove_if_stale(path: Path) -> None:
    """Remove a lock file of Postgres whose process number now belongs to something else, or to a zombie.

    Postgres copes with a dead number itself, and then also looks for children of the dead server; so that case is its.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = abs(int(path.read_text().split("\n", 1)[0]))
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
        if not program.endswith(b"/postgres") and not program.startswith(b"postgres:"):
            path.unlink()


def main() -> int:
    """Run as `_keeper.py <server as JSON> <descriptor that holds the keeper's lock>`."""
    if os.fork():
        # The caller waits for this exit, so the keeper is nobody's child: no zombie, no warning about it.
        os._exit(0)
    try:
        _Keeper(Server(*json.loads(sys.argv[1])), int(sys.argv[2])).run()
    except Exception:  # noqa: BLE001 - the log is the only place where anybody can read it
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
