"""The faults of the chaos suite, and the workers they meet. Each fault ends what it began; the seed chooses which."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from chaos_load import SCHEMA
from killing import restart
from oracles import problems

from eventic_core import Eventic
from eventic_core.runtime import adapter

WORKER = Path(__file__).with_name("chaos_worker.py")
OTHERS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
WRITTEN = ("eventic.records", "dbos.workflow_status", "dbos.operation_outputs")
TROUBLE = """
create or replace function chaos.trouble() returns trigger language plpgsql as $$
begin
    if random() < tg_argv[1]::float then
        raise exception 'trouble of the chaos suite' using errcode = tg_argv[0];
    end if;
    return null;
end $$;
"""


def connect(url: str) -> psycopg.Connection[Any]:
    """Connect, for as long as it takes."""
    while True:
        try:
            return psycopg.connect(url, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError:
            time.sleep(0.1)


def execute(url: str, sql: str) -> None:
    """Run a statement, for as long as it takes."""
    while True:
        try:
            with connect(url) as connection:
                connection.execute(sql)
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return


class Workers:
    """Worker processes on one database; what they say on stderr is in `log`."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.running: list[subprocess.Popen[str]] = []
        self._launched: set[int] = set()

    def start(self, *, version: str = "1", clock: float = 0.0) -> subprocess.Popen[str]:
        environment = {**os.environ, "EVENTIC_APP_VERSION": version, "CHAOS_CLOCK": str(clock)}
        with self.log.open("a") as log:
            child = subprocess.Popen(
                [sys.executable, WORKER, self.url], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.running.append(child)
        return child

    def ready(self) -> None:
        """Wait until all have launched, or died."""
        for child in self.running:
            if child.pid not in self._launched and child.stdout is not None:
                child.stdout.readline()
                self._launched.add(child.pid)

    def kill(self, child: subprocess.Popen[str]) -> None:
        self.running.remove(child)
        child.kill()
        child.communicate(timeout=100)

    def replace_dead(self) -> int:
        """Start another one for each that has died; gives how many."""
        dead = [child for child in self.running if child.poll() is not None]
        for child in dead:
            self.running.remove(child)
            child.communicate()
            self.start()
        return len(dead)

    def end(self) -> list[int]:
        """Stop all as an operator would; gives their exit codes."""
        self.ready()  # before that a signal would kill
        for child in self.running:
            child.terminate()
        codes = []
        for child in self.running:
            child.communicate(timeout=100)
            codes.append(child.returncode)
        self.running.clear()
        return codes

    def kill_all(self) -> None:
        for child in list(self.running):
            self.kill(child)


@contextlib.contextmanager
def connected(url: str, folder: Path) -> Iterator[Workers]:
    """Connect this process to a database, on which workers may be started; all are killed in the end."""
    os.environ["CHAOS_URL"] = url
    Eventic.init(name="driver", database_url=url, pool_size=5)
    workers = Workers(url, folder / "workers.log")
    try:
        adapter.migrate(url)
        execute(url, SCHEMA)
        yield workers
    finally:
        workers.kill_all()
        Eventic.shutdown()
        del os.environ["CHAOS_URL"]


def check(url: str, *oracles: dict[str, str]) -> None:
    """Ask oracles of a system that is quiet."""
    with connect(url) as connection:
        assert problems(connection, {what: sql for some in oracles for what, sql in some.items()}) == []


def until(holds: Callable[[], object], workers: Workers, *, seconds: float = 100) -> None:
    """Wait until something holds, with a new worker for each that dies."""
    deadline = time.monotonic() + seconds
    while not holds():
        workers.replace_dead()
        assert time.monotonic() < deadline, "it does not come to hold:\n" + workers.log.read_text()[-3000:]
        time.sleep(0.05)


class Faults:
    """Faults over some workers and the server, whose data directory is `data`."""

    def __init__(self, workers: Workers, data: Path, chance: random.Random) -> None:
        self.workers = workers
        self.data = data
        self.chance = chance
        self.url = workers.url

    def draw(self) -> Callable[[], None]:
        """Choose one."""
        return self.chance.choice(ALL).__get__(self)  # type: ignore[no-any-return]

    def kill_a_worker(self) -> None:
        self.workers.kill(self.chance.choice(self.workers.running))
        self.workers.start()

    def kill_all_workers(self) -> None:
        count = len(self.workers.running)
        self.workers.kill_all()
        for _ in range(count):
            self.workers.start()

    def stop_and_continue(self) -> None:
        """Sometimes longer than the others need to take the stopped one's work over: a zombie that wakes and writes."""
        child = self.chance.choice(self.workers.running)
        child.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.choice([1, 8]))
        child.send_signal(signal.SIGCONT)

    def cut_off_while_stopped(self) -> None:
        """A zombie: its sessions end while it stands still, its work is taken over, it wakes and goes on."""
        child = self.chance.choice(self.workers.running)
        child.send_signal(signal.SIGSTOP)
        execute(self.url, f"select pg_terminate_backend(pid) {OTHERS} and backend_type = 'client backend'")
        time.sleep(self.chance.uniform(3, 6))
        child.send_signal(signal.SIGCONT)

    def restart_postgres(self) -> None:
        restart(self.data)

    def terminate_backends(self) -> None:
        for _ in range(self.chance.randint(3, 12)):
            execute(self.url, f"select pg_terminate_backend(pid) {OTHERS} and backend_type = 'client backend'")
            time.sleep(self.chance.uniform(0.02, 0.2))

    def exhaust_connections(self) -> None:
        """Take every connection there is, after having ended all, for a while."""
        taken = []
        with contextlib.ExitStack() as stack:
            with connect(self.url) as operator:
                operator.execute(f"select pg_terminate_backend(pid) {OTHERS} and backend_type = 'client backend'")
                with contextlib.suppress(psycopg.OperationalError):
                    while len(taken) < 400:
                        taken.append(stack.enter_context(psycopg.connect(self.url, autocommit=True)))
            time.sleep(self.chance.uniform(0.5, 3))

    def shift_clocks(self) -> None:
        """A worker comes whose clock is minutes ahead or behind."""
        self.workers.kill(self.chance.choice(self.workers.running))
        self.workers.start(clock=self.chance.choice([-300.0, 300.0]))

    def poison(self) -> None:
        """Payloads nobody can decode, and a workflow nobody knows; named so that what is left open is known."""
        for name in ("eventic.run", "eventic.later", "eventic.handle", "story", "async_story"):
            insert_run(self.url, f"poison {name} {uuid4()}", name, payload='{"$":"call","v":{"args":[')
        insert_run(self.url, f"left open {uuid4()}", "unknown_to_all", payload='{"$":"call","v":{}}')

    def skew_versions(self) -> None:
        """A worker of another version in place of one of ours."""
        self.workers.kill(self.chance.choice(self.workers.running))
        self.workers.start()
        self.workers.start(version="2")

    def hold_a_transaction(self) -> None:
        with connect(self.url) as connection:
            connection.autocommit = False
            connection.execute("select pg_current_xact_id()")
            time.sleep(self.chance.uniform(1, 4))

    def fail_serialization(self) -> None:
        ours = trouble(self.url, "40001", 0.2, ["eventic.records"])
        with ours, trouble(self.url, "40P01", 0.2, ["dbos.workflow_status", "dbos.operation_outputs"]):
            time.sleep(self.chance.uniform(0.5, 3))

    def fill_the_disk(self) -> None:
        with trouble(self.url, "53100", 1.0):
            time.sleep(self.chance.uniform(0.5, 3))


ALL: list[Any] = [
    value for name, value in vars(Faults).items() if not name.startswith("_") and name != "draw" and callable(value)
]


@contextlib.contextmanager
def trouble(url: str, code: str, share: float, tables: Sequence[str] = WRITTEN) -> Iterator[None]:
    """Have a share of all statements that write records or runs fail with an SQL state, as the server's own would."""
    execute(url, "create schema if not exists chaos")
    execute(url, TROUBLE)
    for table in tables:
        execute(
            url,
            f"create or replace trigger chaos_trouble before insert or update on {table} "
            f"for each statement execute function chaos.trouble('{code}', '{share}')",
        )
    try:
        yield
    finally:
        for table in tables:
            execute(url, f"drop trigger if exists chaos_trouble on {table}")


def insert_run(url: str, run: str, name: str, *, payload: str | None, queue: str = "chaos", version: str = "1") -> None:
    """Write a run straight into DBOS's tables, as another program might."""
    with connect(url) as connection, connection.transaction():
        connection.execute(
            "insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, serialization, created_at, "
            "updated_at, priority, application_version) values (%s, 'ENQUEUED', %s, %s, 'eventic_json', "
            "extract(epoch from now()) * 1000, extract(epoch from now()) * 1000, 0, %s)",
            (run, name, queue, version),
        )
        if payload is not None:
            connection.execute(
                "insert into dbos.workflow_input (workflow_uuid, inputs) values (%s, %s)", (run, payload)
            )
