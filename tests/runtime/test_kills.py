"""Kill -9 at any moment: what runs and handlers write and enqueue is there once, and branches stay what they were.

Each check is shown to see a planted bug.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from kills_worker import ITEMS, Follow, Item, Noted, Source, queue, ten

from eventic_core import Eventic
from eventic_core.errors import EventicError

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = Path(__file__).with_name("kills_worker.py")
DEADLINE_SECONDS = 100


def start(url: str, **environment: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, WORKER, url],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        assert child.wait(100) == -9, child.communicate()[1]
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate(timeout=100)


def unfinished(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'PENDING', 'DELAYED')"
        ).fetchone()
    assert row is not None
    return int(row[0])


def stranded(url: str, child: subprocess.Popen[str]) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "select workflow_uuid, status, queue_name, queue_partition_key, executor_id, recovery_attempts, owner_xid "
            "from dbos.workflow_status where status in ('ENQUEUED', 'PENDING', 'DELAYED') limit 20"
        ).fetchall()
    child.send_signal(signal.SIGUSR1)  # where its threads are
    time.sleep(1)
    child.kill()
    return "work is stranded: " + "\n".join(map(str, rows)) + child.communicate()[1]


def wait_until_done(url: str, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while unfinished(url):
        assert time.monotonic() < deadline, stranded(url, child)
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.05)


def problems(runs: dict[str, Any]) -> list[str]:
    """What is wrong with what the runs left, seen from outside of the engine."""
    found = []
    items: dict[tuple[str, int], list[Item]] = collections.defaultdict(list)
    for item in Item.where().all():
        items[item.run, item.place].append(item)
    follows = collections.Counter((follow.run, follow.place) for follow in Follow.where().all())
    noted = collections.Counter((note.item, note.of_version) for note in Noted.where().all())
    for run, handle in runs.items():
        try:
            outcome = handle.result(timeout_seconds=100)
        except EventicError as error:
            found.append(f"{run} failed: {error!r}")
            continue
        for place in range(ITEMS):
            found += problems_at(run, place, items.pop((run, place), []), outcome[place])
            if follows.pop((run, place), 0) != 1:
                found.append("a follow-up was not done once")
    if noted != collections.Counter((item.id, version) for item in Item.where().all() for version in (0, 1)):
        found.append("a version was not handled once")
    if items or follows:
        found.append("there is more than the runs wrote")
    return found


def problems_at(run: str, place: int, written: list[Item], outcome: tuple[int, str]) -> list[str]:
    if len(written) != 1:
        return [f"{len(written)} items at place {place} of {run}"]
    (item,) = written
    found = [] if item.version == 1 else [f"an item has {item.version + 1} versions"]
    if (item.seen, item.branch) != tuple(outcome):
        found.append(f"{run} at {place} wrote {item.seen, item.branch}, then saw {outcome}")
    return found


@pytest.fixture
def busy_source(eventic: str) -> Iterator[Source]:
    """A record that somebody changes all the time."""
    source, stop = Source(), threading.Event()

    def change() -> None:
        mine = Source.hydrate(source.id)
        while not stop.wait(random.uniform(0.001, 0.01)):
            mine.number += 1

    thread = threading.Thread(target=change)
    thread.start()
    yield source
    stop.set()
    thread.join()


def enqueue(source: Source, count: int) -> dict[str, Any]:
    names = [f"run-{number}" for number in range(count)]
    return {name: queue.enqueue(ten, name, source.id, run_id=name) for name in names}


def test_everything_happens_once_however_often_the_worker_is_killed(eventic: str, busy_source: Source) -> None:
    end(start(eventic))  # the handler is known from here on
    runs = enqueue(busy_source, 30)
    for _ in range(6):
        child = start(eventic)
        time.sleep(random.uniform(0.0, 0.4))
        end(child)
    child = start(eventic)
    wait_until_done(eventic, child)
    end(child)
    assert problems(runs) == []


@pytest.mark.parametrize("commits", [1, 2, 3, 4, 7])
def test_a_kill_right_after_a_commit_repeats_nothing(eventic: str, busy_source: Source, commits: int) -> None:
    end(start(eventic))
    runs = enqueue(busy_source, 1)
    child = start(eventic, DIE_AFTER=str(commits))
    assert child.wait(100) == -9
    child.communicate()
    child = start(eventic)
    wait_until_done(eventic, child)
    end(child)
    assert problems(runs) == []


@pytest.mark.parametrize(
    ("plant", "commits", "problem"),
    [
        ("forget_checkpoints", 2, "failed: RecordExists"),
        ("forget_reads", 1, "then saw"),
        ("make_new_ids", 30, "a follow-up was not done once"),
        ("forget_progress", 0, "a version was not handled once"),
    ],
)
def test_the_checks_see_a_planted_bug(
    eventic: str, busy_source: Source, plant: str, commits: int, problem: str
) -> None:
    """The other side of the tests above."""
    end(start(eventic))
    runs = enqueue(busy_source, 1)
    moment = {"DIE_AFTER": str(commits)} if commits else {"DIE_IN_HANDLER": "1"}
    child = start(eventic, PLANT=plant, **moment)
    assert child.wait(100) == -9
    child.communicate()
    child = start(eventic, PLANT=plant)
    wait_until_done(eventic, child)
    end(child)
    assert any(problem in line for line in problems(runs)), problems(runs)


def test_work_goes_on_through_a_stream_of_broken_connections(eventic: str, busy_source: Source) -> None:
    child = start(eventic)
    runs = enqueue(busy_source, 20)
    with psycopg.connect(eventic, autocommit=True) as connection:
        for _ in range(15):
            time.sleep(0.1)
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
    wait_until_done(eventic, child)
    end(child)
    assert problems(runs) == []


def test_work_goes_on_after_postgres_was_restarted(own_server: tuple[str, Path]) -> None:
    url, data = own_server
    Eventic.init(name="tests", database_url=url)
    child = start(url)
    try:
        runs = enqueue(Source(), 20)
        for _ in range(2):
            time.sleep(0.3)
            before = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
            os.kill(before, signal.SIGQUIT)  # as pg_ctl stop -m immediate; its keeper starts it again
            while unfinished_after_restart(url, before, data) is None:
                time.sleep(0.05)
        wait_until_done(url, child)
        assert problems(runs) == []
    finally:
        end(child)
        Eventic.shutdown()


def unfinished_after_restart(url: str, before: int, data: Path) -> int | None:
    """How much is left, once another server answers."""
    try:
        if int((data / "postmaster.pid").read_text().split("\n", 1)[0]) == before:
            return None
        return unfinished(url)
    except (OSError, ValueError, psycopg.OperationalError):
        return None
