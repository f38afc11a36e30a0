"""A worker of `test_fleet` and `test_partition`: quick to beat, to judge and to take over."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from eventic_core import Eventic, Record
from eventic_core.runtime import presence, takeover

presence.LISTEN_SECONDS = presence.BEAT_SECONDS = presence.TAKE_OVER_SECONDS = 0.2
takeover.STALLED_SECONDS = 2.0

MARKS = os.environ.get("FLEET_MARKS", os.devnull)
LOADS = Eventic.queue("fleet_loads", concurrency=4)


class FleetNote(Record):
    about: str
    pid: int


def mark(what: str) -> None:
    """Note outside of the database that something was done, and by which process."""
    with Path(MARKS).open("a") as file:
        file.write(f"{what} {os.getpid()}\n")


def hold(about: str) -> None:
    """Take as long as the file says that is there while it must."""
    while Path(f"{MARKS}.{about}").exists():
        time.sleep(0.02)


@Eventic.transaction(name="fleet.note")
def note(about: str) -> int:
    FleetNote(about=about, pid=os.getpid())
    return os.getpid()


@Eventic.transaction(name="fleet.note_slowly")
def note_slowly(about: str, run: str = "") -> int:
    FleetNote(about=about, pid=os.getpid())
    lock = f"select from dbos.workflow_status where workflow_uuid = '{run}' for update"
    Eventic.connection().exec_driver_sql(lock)
    mark(f"begun-{about}")
    hold(about)
    return os.getpid()


@Eventic.step(name="fleet.outside")
def outside(about: str) -> int:
    mark(f"begun-{about}")
    hold(about)
    mark(f"ended-{about}")
    return os.getpid()


@Eventic.workflow(name="fleet.trip")
def trip(about: str) -> int:
    note(f"{about}-before")
    found = outside(about)
    note(f"{about}-after")
    return found


@Eventic.workflow(name="fleet.stay")
def stay(about: str) -> None:
    mark(f"begun-{about}")
    hold(f"{about}-{os.getpid()}")
    FleetNote(about=about, pid=os.getpid())
    mark(f"written-{about}")


if __name__ == "__main__":
    Eventic.init(name="fleet", database_url=sys.argv[1], reconnect_seconds=2)
    Eventic.launch()
    print("launched", flush=True)  # noqa: T201 - what the test waits for
    threading.Event().wait()
