"""The worker that `test_batch_kills` kills: it notes every call in a file, which no transaction takes back."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any
from uuid import UUID

from eventic_core import Eventic, Record, Retry, on
from eventic_core.automation.declared import automation
from eventic_core.automation.run import Run
from eventic_core.automation.steering import ItemContext

CALLS = os.environ.get("BATCH_CALLS", os.devnull)
GROUP_SIZE = 100
CONCURRENCY = 4
_calls = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Imported(Record, class_type="BatchImported"):
    """One for each item that was done."""

    number: int
    twice: int = 0


class Ended(Record, class_type="BatchRunEnded"):
    """One for each completed run that a handler saw."""

    run: UUID


def note(number: int, attempt: int) -> None:
    """Note a call, beyond the reach of any rollback."""
    os.write(_calls, f"{number} {attempt} {time.time():.6f} {os.getpid()}\n".encode())


def work(item: dict[str, Any], context: ItemContext) -> dict[str, int]:
    """Import a row: 1 % of them fail once, 0.5 % always."""
    number = item["number"]
    note(number, context.attempt)
    if number % 200 == 7:
        raise ValueError(f"row {number} is bad")
    if number % 100 == 3 and context.attempt == 1:
        raise ConnectionError("try again")
    imported = Imported(number=number)
    imported.twice = number * 2
    return {"twice": number * 2}


RETRY = Retry(max_attempts=3, delay_seconds=0.01)
LIMITS: dict[str, Any] = {"retry": RETRY, "concurrency": CONCURRENCY, "group_size": GROUP_SIZE, "group_seconds": 0.2}
by_group = automation("kills by group", tolerated_failures="1%", **LIMITS)(work)


@automation("kills by item", tolerated_failures="1%", checkpoint="item", **LIMITS)
def by_item(item: dict[str, Any], context: ItemContext) -> dict[str, int]:
    """Import a row, slowly enough to be killed at it."""
    time.sleep(0.01)
    return work(item, context)


@automation("kills poison", tolerated_failures=5, **LIMITS)
def poison(item: dict[str, Any], context: ItemContext) -> None:
    """Kill the worker, each time, for one item."""
    note(item["number"], context.attempt)
    if item["number"] == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    Imported(number=item["number"])


def ended(run: Run) -> None:
    """Note that a run completed."""
    Ended(run=run.id)


if __name__ == "__main__":
    on.call(Run.complete)(ended)  # here only, for the runs of other tests are none of its business
    Eventic.init(name="kills", database_url=sys.argv[1])
    Eventic.launch()
    sys.stdout.write("launched\n")
    sys.stdout.flush()
    threading.Event().wait()
