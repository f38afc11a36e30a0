"""Readiness and liveness by real faults: Postgres killed, stopped, read-only and full, and loops that stand still."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from conftest import execute, make_open_folder, remove_when_stopped, until
from killing import postmaster, restart

from eventic_core import Eventic
from eventic_core.operations import readiness as module
from eventic_core.operations.readiness import liveness, readiness
from eventic_core.runtime import process
from eventic_core.settings import libpq_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL_DISK = "180m"


def codes() -> list[str]:
    return [cause.code for cause in readiness().causes]


def looks() -> int:
    """Count the threads that look at Postgres."""
    return sum(thread.name == "eventic-look" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def faulty() -> Iterator[tuple[str, Path]]:
    """A server on a small disk of its own, that may be killed, and workers of this process on it."""
    from eventic_core.store.embedded import start_embedded

    folder = make_open_folder()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=755", "tmpfs", str(folder)], check=True)
    server = start_embedded(folder)
    try:
        Eventic.init(name="tests", database_url=server.url, reconnect_seconds=60)
        Eventic.launch()
        yield server.url, server.data_dir
        Eventic.shutdown()
    finally:
        server.release()
        deadline = time.monotonic() + 100
        while list(folder.glob("**/postmaster.pid")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        remove_when_stopped(folder)


@contextmanager
def stopped(data: Path) -> Iterator[None]:
    """Stop the server and all of its processes; they go on after the block."""
    main = psutil.Process(postmaster(data))
    every = [main, *main.children(recursive=True)]
    for one in every:
        with suppress(psutil.NoSuchProcess):  # some come and go: those of autovacuum
            one.suspend()
    try:
        yield
    finally:
        for one in every:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def test_readiness_is_red_while_postgres_is_gone_and_green_again_by_itself(faulty: tuple[str, Path]) -> None:
    until(lambda: codes() == [])
    keeper_waits = threading.Event()

    def watch() -> None:
        while not keeper_waits.is_set():
            seen.update(codes())
            time.sleep(0.01)

    seen: set[str] = set()
    watching = threading.Thread(target=watch)
    watching.start()
    main = postmaster(faulty[1])
    os.kill(main, signal.SIGSTOP)  # so that its keeper does not bring it back before somebody looked
    until(lambda: "postgres_gone" in seen or "postgres_silent" in seen)
    seen.clear()
    os.kill(main, signal.SIGCONT)
    restart(faulty[1])
    until(lambda: codes() == [])
    keeper_waits.set()
    watching.join()
    assert liveness().is_well


def test_readiness_answers_while_postgres_hangs_and_holds_one_thread(faulty: tuple[str, Path]) -> None:
    until(lambda: codes() == [])
    with stopped(faulty[1]):
        until(lambda: codes() in (["postgres_silent"], ["postgres_gone"]))
        askers = [threading.Thread(target=codes) for _ in range(10)]
        for asker in askers:
            asker.start()
        assert looks() <= 1
        for asker in askers:
            asker.join()
        assert liveness().is_well
    until(lambda: codes() == [])


def test_a_full_disk_is_seen_before_a_write_fails_and_room_on_it_too(faulty: tuple[str, Path]) -> None:
    until(lambda: codes() == [])
    url, data = faulty
    full = data.parent / "filler"
    with full.open("wb") as filler:
        try:
            while True:
                filler.write(b"x" * 65536)
                filler.flush()
        except OSError:
            pass
    try:
        until(lambda: codes() == ["disk_full"])
        execute(libpq_url(url), "update eventic.eventic_version set version_num = version_num")  # has room on its page
    finally:
        full.unlink()
    until(lambda: codes() == [])


def test_readiness_is_red_while_postgres_is_read_only(faulty: tuple[str, Path]) -> None:
    until(lambda: codes() == [])
    url = libpq_url(faulty[0])
    execute(url, "alter system set default_transaction_read_only = on", "select pg_reload_conf()")
    try:
        until(lambda: codes() == ["read_only"])
    finally:
        execute(
            url,
            "set default_transaction_read_only = off",
            "alter system reset default_transaction_read_only",
            "select pg_reload_conf()",
        )
    until(lambda: codes() == [])


def test_a_loop_that_stands_still_is_not_alive_unless_postgres_is_away(
    faulty: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = process().worker
    assert worker is not None
    until(lambda: worker.executor.asked_at > 0)
    assert liveness().is_well
    blocked, goes_on = threading.Event(), threading.Event()
    served = worker.dispatcher._queues

    def blocks() -> Any:
        blocked.set()
        goes_on.wait(60)
        return served()

    monkeypatch.setattr(module, "STUCK_SECONDS", 2.5)  # longer than the other loop stands still when nothing happens
    worker.dispatcher._queues = blocks
    assert blocked.wait(100)
    try:
        until(lambda: not liveness().is_well)
        assert "dispatcher" in liveness().causes[0].message
        assert liveness().http_status == 503
    finally:
        worker.dispatcher._queues = served
        goes_on.set()
    until(lambda: liveness().is_well)


def test_a_loop_that_waits_for_postgres_is_alive(faulty: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    until(lambda: codes() == [])
    monkeypatch.setattr(module, "STUCK_SECONDS", 2.0)
    with stopped(faulty[1]):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert liveness().is_well
            time.sleep(0.2)
    until(lambda: codes() == [])
    assert liveness().is_well
