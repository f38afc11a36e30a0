"""A Postgres that refuses: deadlocks, serialization failures, a full disk, no connection left, a transaction held open.

None of it is blamed on the work: it costs no attempt, nothing is lost or done twice, and all goes on by itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from chaos_load import CHAOS_DAG, ELEMENTS, ChaosMade, async_story, chaos_import, follow, queue, story
from conftest import execute, with_database
from faults import Workers, check, connected, insert_run, trouble, until
from oracles import ALWAYS, WHEN_QUIET, problems

from eventic_core import Eventic
from eventic_core.automation import Run
from eventic_core.errors import StoreUnavailable
from eventic_core.jobs import DagRun
from eventic_core.runtime import adapter, runs
from eventic_core.runtime.performer import Performer
from eventic_core.runtime.process import process
from eventic_core.store import health

STORIES, ITEMS = 15, 40
LEFT = {what: WHEN_QUIET[what] for what in ("work is left over", "a run of items or jobs has not ended")}
AGAIN = """
select class_type, data ->> 'job', data ->> 'error_type', data ->> 'error_message' from eventic.records
where class_type in ('JobRun', 'ItemExecution') and data ->> 'status' = 'RETRYING'
  and data ->> 'error_message' is distinct from 'try again'
"""
FAILED = """
select workflow_uuid, name, left(o.error, 600)
from dbos.workflow_status s left join dbos.workflow_output o using (workflow_uuid)
where s.status <> 'SUCCESS'
"""

OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


@pytest.fixture
def workers(migrated_url: str, tmp_path: Path) -> Iterator[Workers]:
    with connected(migrated_url, tmp_path) as found:
        yield found


def begin() -> tuple[Run, DagRun]:
    """Enqueue some of every kind."""
    for number in range(STORIES):
        queue.enqueue(story if number % 3 else async_story, f"story-{number}", run_id=f"story-{number}")
    run = chaos_import.start(chaos_import.batch("trouble", ({"of": "it", "number": n} for n in range(ITEMS))))
    return run, CHAOS_DAG.start()


def all_is_done(workers: Workers, run: Run, dag_run: DagRun) -> None:
    """Wait until all that was enqueued is done, and check that it was done once, as if nothing had been."""
    with psycopg.connect(workers.url, autocommit=True) as connection:
        until(lambda: not problems(connection, LEFT), workers)
        failed = connection.execute(FAILED).fetchall()
        again = connection.execute(AGAIN).fetchall()
    check(workers.url, ALWAYS, WHEN_QUIET)
    assert failed == []
    assert (run.refresh() or run.status, dag_run.refresh() or dag_run.status) == ("COMPLETED", "COMPLETED")
    assert again == []
    assert run.progress().completed == ITEMS
    assert dag_run.result("chaos gathered") == sum(range(ELEMENTS))


def test_deadlocks_and_serialization_failures_cost_no_attempt(workers: Workers) -> None:
    run, dag_run = begin()
    # At read committed no statement of DBOS's own meets a serialization failure, and it would not try again.
    ours = trouble(workers.url, "40001", 0.1, ["eventic.records"])
    with ours, trouble(workers.url, "40P01", 0.1, ["dbos.workflow_status", "dbos.operation_outputs"]):
        workers.start()
        workers.start()
        workers.ready()
        time.sleep(2.5)
    all_is_done(workers, run, dag_run)


@contextlib.contextmanager
def standby(url: str) -> Iterator[None]:
    """Have the database take no writes, as a primary that becomes a standby: sessions end, new ones are read-only."""
    database = f"alter database {urlsplit(url).path[1:]}"
    execute(url, f"{database} set default_transaction_read_only = on", OTHERS)
    try:
        yield
    finally:
        execute(url, "set default_transaction_read_only = off", f"{database} reset default_transaction_read_only")


def test_a_primary_that_takes_no_writes_for_a_while_fails_no_work(workers: Workers) -> None:
    run, dag_run = begin()
    workers.start()
    workers.start()
    workers.ready()
    with standby(workers.url):
        with pytest.raises(StoreUnavailable, match="takes no writes"):
            ChaosMade(name="refused")
        with pytest.raises(StoreUnavailable, match="takes no writes"), Eventic.unit_of_work():
            ChaosMade(name="refused")
        assert ChaosMade.where(name="refused").count() == 0
        time.sleep(3)
    all_is_done(workers, run, dag_run)


@contextlib.contextmanager
def small_disk(url: str, folder: Path) -> Iterator[tuple[str, Path | None]]:
    """Give a database on a disk of its own, and that disk; no disk where nobody may mount one."""
    disk = folder / "disk"
    disk.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        yield url, None
        return
    try:
        owner = (folder / "postgres" / "data").stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        disk.chmod(0o700)
        execute(url, f"create tablespace small location '{disk}'", "create database small tablespace small")
        yield with_database(url, "small"), disk
        execute(url, "drop database small with (force)", "drop tablespace small")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@contextlib.contextmanager
def full(url: str, disk: Path | None) -> Iterator[None]:
    """Leave no room on a disk; without one, have the server say so of every write."""
    if disk is None:
        with trouble(url, "53100", 1.0):
            yield
        return
    with (disk / "filler").open("wb") as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(65536))
            filler.flush()
    yield
    (disk / "filler").unlink()


def enqueue_until_refused() -> None:
    for number in range(200):
        queue.enqueue(follow, f"{number} " + os.urandom(50_000).hex(), run_id=f"large-{number}")


def test_on_a_full_disk_writes_are_refused_aloud_and_with_room_again_all_goes_on(
    own_server: tuple[str, Path], tmp_path: Path
) -> None:
    server, data = own_server
    with small_disk(server, data.parent.parent) as (url, disk), connected(url, tmp_path) as workers:
        run, dag_run = begin()
        workers.start()
        workers.ready()
        with full(url, disk):
            Eventic.shutdown()
            Eventic.init(name="driver", database_url=url, reconnect_seconds=0.2)
            with pytest.raises(StoreUnavailable, match=r"space|trouble of the chaos suite"):
                enqueue_until_refused()
        all_is_done(workers, run, dag_run)
        assert [child.poll() for child in workers.running] == [None]
        workers.kill_all()


def test_a_transaction_that_is_held_open_stops_nobody_and_is_named(workers: Workers) -> None:
    run, dag_run = begin()
    with psycopg.connect(workers.url) as forgotten:
        forgotten.execute("select pg_current_xact_id(), * from eventic.records limit 1")
        workers.start()
        all_is_done(workers, run, dag_run)
        named = {each.pid for each in health.read(workers.url).transactions if each.holds_feed}
        assert forgotten.info.backend_pid in named


def test_work_that_cannot_be_put_back_while_the_disk_is_full_is_put_back_later(workers: Workers) -> None:
    Eventic.shutdown()
    Eventic.init(name="driver", database_url=workers.url, reconnect_seconds=0.1)
    store, row = process().store, queue.row(keyed=False)
    process().ensure_queue(row)
    insert_run(workers.url, "put back", "unknown_to_all", payload="{}")
    (claim,) = store.work.claim(row, 1, owner="me", executor="worker-0")
    claimed = adapter.Claimed(claim.run_id, claim.name, "me", claim.attempts, claim.payload or "", None)
    performer = Performer(store, adapter, lambda: False)
    thread = threading.Thread(target=performer.park, args=(claimed, "somebody who knows it"))
    with trouble(workers.url, "53100", 1.0):
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(100)
    assert runs.get_run("put back").status == "DELAYED"
