"""Many workers: who is alive, who is asked to end; work of one that hangs goes on elsewhere, and only there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from conftest import execute, until
from fleet import PROGRAM, Fleet
from fleet_worker import LOADS, FleetNote, note, note_slowly, outside, stay, trip

from eventic_core import Eventic, Invalid, NotFound
from eventic_core.errors import InvalidFilter
from eventic_core.operations import OperatorAct
from eventic_core.operations.queues import pause_queue, paused_queues, resume_queue
from eventic_core.operations.workers import WorkerRow, drain_workers, list_workers

COMMAND = [sys.executable, "-m", "eventic_core"]


@pytest.fixture
def fleet(eventic: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(eventic, tmp_path / "marks") as found:
        yield found


def row_of(process: subprocess.Popen[str]) -> WorkerRow | None:
    return next((row for row in list_workers(ended=True) if row.pid == process.pid), None)


def heard(process: subprocess.Popen[str], seconds: float = 1.0) -> None:
    """Wait until a worker has beaten for so long, and done what it heard."""
    seen = until(lambda: row_of(process))
    until(lambda: (row_of(process) or seen).beat_at.timestamp() > seen.beat_at.timestamp() + seconds)


def acts() -> list[tuple[str, str, str | None, str | None]]:
    found = OperatorAct.where().order_by(OperatorAct.fields.act).all()
    return [(act.act, act.target, act.stamp.actor, act.stamp.reason) for act in found]


def notes(about: str) -> list[FleetNote]:
    return FleetNote.where(FleetNote.fields.about == about).all()


# -- who is alive


def test_a_worker_says_what_it_is_and_does(fleet: Fleet) -> None:
    worker = fleet.start(EVENTIC_APP_VERSION="7")
    held = fleet.hold("busy")
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=fleet.url, app_version="7")
    handle = LOADS.enqueue(outside, "busy")
    row = until(lambda: next((row for row in list_workers() if row.running == 1), None))
    assert (row.slot, row.state, row.pid) == ("worker-0", "alive", worker.pid)
    assert (row.application, row.app_version, row.queues) == (
        "fleet",
        "7",
        ["eventic_direct", "queue_fleet_note", "fleet_loads"],
    )
    held.unlink()
    assert handle.result(timeout_seconds=100) == worker.pid


def test_a_worker_that_was_killed_is_listed_as_lost_with_what_was_taken_over(fleet: Fleet) -> None:
    first = fleet.start()
    held = fleet.hold("lost")
    handle = LOADS.enqueue(trip, "lost")
    until(lambda: fleet.begun("lost"))
    second = fleet.start()
    first.kill()
    until(lambda: fleet.begun("lost")[1:] == [second.pid])
    held.unlink()
    assert handle.result(timeout_seconds=100) == second.pid
    row = until(lambda: (found := row_of(first)) is not None and found.state == "lost" and found)
    assert row.recovered == 1
    assert [len(notes(f"lost-{when}")) for when in ("before", "after")] == [1, 1]


def test_a_page_of_workers_holds_at_least_one(eventic: str) -> None:
    with pytest.raises(InvalidFilter, match="at least one"):
        list_workers(limit=0)


# -- one that hangs


def test_work_of_a_stopped_worker_goes_on_elsewhere_and_what_it_does_later_is_refused(fleet: Fleet) -> None:
    zombie = fleet.start()
    held = fleet.hold("trip")
    handle = LOADS.enqueue(trip, "trip")
    until(lambda: fleet.begun("trip"))
    other = fleet.start()
    zombie.send_signal(signal.SIGSTOP)
    until(lambda: other.pid in fleet.begun("trip"))
    row = row_of(zombie)
    assert row is not None
    assert (row.state, row.recovered) == ("lost", 1)
    held.unlink()
    assert handle.result(timeout_seconds=100) == other.pid
    zombie.send_signal(signal.SIGCONT)  # it ends its step, and then finds out
    until(lambda: f"ended-trip {zombie.pid}" in fleet.marks.read_text())
    assert LOADS.enqueue(note, "after").result(timeout_seconds=100) in (zombie.pid, other.pid)
    assert {found.about: found.pid for found in FleetNote.where().all()} == {
        "trip-before": zombie.pid,
        "trip-after": other.pid,
        "after": notes("after")[0].pid,
    }
    back = until(lambda: [row for row in list_workers() if row.pid == zombie.pid])  # it works again, as another
    assert back[0].id != row.id


def test_a_zombie_that_wakes_before_the_other_has_written_writes_nothing(fleet: Fleet) -> None:
    zombie, other = fleet.start(), fleet.start()
    held = {process.pid: fleet.hold(f"stay-{process.pid}") for process in (zombie, other)}
    handle = LOADS.enqueue(stay, "stay")
    first = until(lambda: fleet.begun("stay"))[0]
    zombie, other = (zombie, other) if first == zombie.pid else (other, zombie)
    zombie.send_signal(signal.SIGSTOP)
    until(lambda: other.pid in fleet.begun("stay"))
    held[zombie.pid].unlink()
    zombie.send_signal(signal.SIGCONT)
    until(lambda: [row for row in list_workers() if row.pid == zombie.pid])
    heard(zombie)
    assert notes("stay") == []
    held[other.pid].unlink()
    handle.result(timeout_seconds=100)
    assert [found.pid for found in notes("stay")] == [other.pid]
    assert f"written-stay {zombie.pid}" not in fleet.marks.read_text()


def test_what_a_stopped_worker_holds_locked_is_let_go(fleet: Fleet) -> None:
    zombie = fleet.start()
    held = fleet.hold("slow")
    handle = LOADS.enqueue(note_slowly, "slow", "slow", run_id="slow")
    until(lambda: fleet.begun("slow"))  # in a transaction that has locked its run's row and written a version
    other = fleet.start()
    zombie.send_signal(signal.SIGSTOP)
    until(lambda: other.pid in fleet.begun("slow"))
    held.unlink()
    assert handle.result(timeout_seconds=100) == other.pid
    zombie.send_signal(signal.SIGCONT)
    until(lambda: [row for row in list_workers() if row.pid == zombie.pid])
    assert [found.pid for found in notes("slow")] == [other.pid]


def test_a_worker_whose_sessions_may_not_be_ended_keeps_only_what_it_holds_locked(fleet: Fleet) -> None:
    role = f"fleet_{uuid4().hex[:12]}"
    execute(fleet.url, f"create role {role} login password 'fleet'", f"grant create on schema eventic to {role}")
    zombie = fleet.start()
    for schema in ("eventic", "dbos"):
        execute(
            fleet.url,
            f"grant usage on schema {schema} to {role}",
            f"grant all on all tables in schema {schema} to {role}",
            f"grant all on all sequences in schema {schema} to {role}",
            f"grant execute on all functions in schema {schema} to {role}",
        )
    try:
        held, free = fleet.hold("locked"), fleet.hold("free")
        locked = LOADS.enqueue(note_slowly, "locked", "locked", run_id="locked")
        until(lambda: fleet.begun("locked"))
        loose = LOADS.enqueue(outside, "free")
        until(lambda: fleet.begun("free"))
        other = fleet.start(_as(fleet.url, role), EVENTIC_AUTO_MIGRATE="false")
        zombie.send_signal(signal.SIGSTOP)
        until(lambda: other.pid in fleet.begun("free"))
        assert fleet.begun("locked") == [zombie.pid]
        zombie.kill()  # now nothing is locked any more
        until(lambda: other.pid in fleet.begun("locked"))
        held.unlink()
        free.unlink()
        assert {locked.result(timeout_seconds=100), loose.result(timeout_seconds=100)} == {other.pid}
        assert [found.pid for found in notes("locked")] == [other.pid]
    finally:
        fleet.stop()
        execute(fleet.url, f"drop owned by {role}", f"drop role {role}")


def _as(url: str, role: str) -> str:
    head, _slashes, rest = url.partition("://")
    return f"{head}://{role}:fleet@{rest.rpartition('@')[2]}"


def test_a_worker_with_no_connection_left_for_its_beat_is_not_taken_for_dead(fleet: Fleet) -> None:
    busy = fleet.start(EVENTIC_POOL_SIZE="1")
    held = [fleet.hold(f"busy-{number}") for number in range(2)]
    handles = [LOADS.enqueue(note_slowly, f"busy-{number}") for number in range(2)]
    until(lambda: fleet.begun("busy-0") and fleet.begun("busy-1"))  # both connections are in transactions
    other = fleet.start()
    heard(other, seconds=4)  # and has judged
    row = row_of(busy)
    assert row is not None
    assert (row.state, row.recovered) == ("alive", 0)
    for file in held:
        file.unlink()
    assert [handle.result(timeout_seconds=100) for handle in handles] == [busy.pid] * 2


def test_runs_of_a_version_that_nobody_runs_wait_for_it_and_are_not_failed(fleet: Fleet) -> None:
    old = fleet.start()
    held = fleet.hold("version")
    handle = LOADS.enqueue(trip, "version")
    until(lambda: fleet.begun("version"))
    fleet.start(EVENTIC_APP_VERSION="2")
    old.kill()
    until(lambda: handle.status() == "ENQUEUED")
    held.unlink()
    again = fleet.start()
    assert handle.result(timeout_seconds=100) == again.pid
    assert [len(notes(f"version-{when}")) for when in ("before", "after")] == [1, 1]


# -- the end of one


def test_work_that_outlives_the_drain_is_given_back_at_once_and_costs_no_attempt(fleet: Fleet) -> None:
    fleet.hold("long")
    first = fleet.start(EVENTIC_DRAIN_SECONDS="0.3")
    handle = LOADS.enqueue(outside, "long")
    until(lambda: fleet.begun("long"))
    command = f"import fleet_worker as f, sys; from eventic_core import Eventic; {DRAIN}"
    first.kill()
    first.communicate()
    draining = subprocess.Popen(
        [sys.executable, "-c", command, fleet.url],
        env={**os.environ, "FLEET_MARKS": str(fleet.marks), "PYTHONPATH": str(PROGRAM.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    fleet.processes.append(draining)
    until(lambda: draining.pid in fleet.begun("long"))
    with psycopg.connect(fleet.url) as connection:
        attempts = connection.execute(ATTEMPTS, (handle.id,)).fetchone()
        draining.communicate("end\n", timeout=100)
        assert handle.status() == "ENQUEUED"
        connection.rollback()
        assert connection.execute(ATTEMPTS, (handle.id,)).fetchone() == (attempts[0] - 1,)


ATTEMPTS = "select recovery_attempts from dbos.workflow_status where workflow_uuid = %s"
DRAIN = (
    "import os; Eventic.init(name='fleet', database_url=sys.argv[1], drain_seconds=0.3); Eventic.launch(); "
    "sys.stdin.readline(); Eventic.shutdown(); os._exit(0)"
)


def test_an_operator_asks_a_worker_to_end_and_it_ends_its_work_first(fleet: Fleet, tmp_path: Path) -> None:
    environment = {**os.environ, "FLEET_MARKS": str(fleet.marks), "PYTHONPATH": str(PROGRAM.parent)}
    worker = subprocess.Popen(
        [*COMMAND, "worker", "fleet_worker", "--database-url", fleet.url],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    fleet.processes.append(worker)
    held = fleet.hold("last")
    handle = LOADS.enqueue(outside, "last")
    until(lambda: fleet.begun("last"))
    asking = ["worker-0", "--actor", "ada", "--reason", "new disk", "--database-url", fleet.url]
    asked = subprocess.run(
        [*COMMAND, "worker", "drain", *asking], env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout == "worker-0  asked to end\n"
    until(lambda: [row for row in list_workers() if row.state == "draining"])
    later = LOADS.enqueue(note, "later")
    held.unlink()
    assert handle.result(timeout_seconds=100) == worker.pid
    assert worker.wait(timeout=100) == 0
    assert later.status() == "ENQUEUED"
    assert acts() == [("worker.drain", "worker-0", "ada", "new disk")]
    listed = subprocess.run(
        [*COMMAND, "worker", "list", "--ended", "--json", "--database-url", fleet.url],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    row = json.loads(listed.stdout)
    assert (row["slot"], row["state"], row["pid"]) == ("worker-0", "stopped", worker.pid)


def test_workers_that_are_not_there_cannot_be_asked_and_then_none_is(fleet: Fleet) -> None:
    worker = fleet.start()
    with pytest.raises(NotFound, match="worker-7"):
        drain_workers(["worker-0", "worker-7"])
    assert OperatorAct.where().all() == []
    (row,) = [row for row in list_workers() if row.pid == worker.pid]
    assert (row.is_drain_asked, row.state) == (False, "alive")


# -- queues


def test_nothing_of_a_paused_queue_begins_until_it_is_resumed(fleet: Fleet) -> None:
    worker = fleet.start()
    held = [fleet.hold(f"pause-{number}") for number in range(4)]
    handles = [LOADS.enqueue(outside, f"pause-{number}") for number in range(4)]
    waiting = [LOADS.enqueue(note, f"waiting-{number}") for number in range(8)]
    until(lambda: (row := row_of(worker)) is not None and row.running == 4)
    with Eventic.acting(actor="ada"):
        assert pause_queue("fleet_loads", reason="API down")
    heard(worker)
    row = row_of(worker)
    assert row is not None
    assert (row.running, row.claimed) == (4, 0)
    for file in held:
        file.unlink()
    assert [handle.result(timeout_seconds=100) for handle in handles] == [worker.pid] * 4
    assert paused_queues()["fleet_loads"][2:] == ("ada", "API down")
    elsewhere = Eventic.queue("fleet_elsewhere").enqueue(note, "elsewhere")
    heard(worker)
    assert {handle.status() for handle in waiting} == {"ENQUEUED"}
    assert resume_queue("fleet_loads")
    assert [handle.result(timeout_seconds=100) for handle in waiting] == [worker.pid] * 8
    assert elsewhere.status() == "ENQUEUED"  # which this worker does not serve
    assert acts() == [
        ("queue.pause", "fleet_loads", "ada", "API down"),
        ("queue.resume", "fleet_loads", None, "queue.resume"),
    ]


def test_a_double_click_pauses_once_and_is_on_record_once(eventic: str) -> None:
    barrier, results = threading.Barrier(6), []

    def click() -> None:
        barrier.wait()
        results.append(pause_queue("clicked", request_key="r-1"))

    threads = [threading.Thread(target=click) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(results) == {True: 1, False: 5}
    resume_queue("clicked")
    assert not pause_queue("clicked", request_key="r-1")  # asked before, and done then
    assert paused_queues() == {}
    assert [act[0] for act in acts()] == ["queue.pause", "queue.resume"]


@pytest.mark.parametrize("name", ["", "  ", "eventic_direct"])
def test_what_is_no_queue_of_the_users_cannot_be_paused(eventic: str, name: str) -> None:
    with pytest.raises(Invalid, match="cannot be paused"):
        pause_queue(name)
    assert (paused_queues(), OperatorAct.where().all()) == ({}, [])
