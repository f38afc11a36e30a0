"""The worker that `test_schedule_kills` kills while it starts runs: what it is about to start takes some time."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Annotated

from pydantic import AfterValidator

from eventic_core import Eventic, Record
from eventic_core.jobs import dag, job
from eventic_core.records.editing import in_scope

CALLS = os.environ.get("SCHEDULE_CALLS")


class Tick(Record, class_type="ScheduleKillsTick"):
    """One for each run."""

    due: str


def slow(value: str) -> str:
    """Check a parameter slowly where it is a schedule that starts a run, and say so before."""
    if CALLS is not None and in_scope():
        with open(CALLS, "a", encoding="utf-8") as calls:  # noqa: PTH123 - appends are whole
            calls.write(f"{os.getpid()}\n")
        time.sleep(0.3)
    return value


@job
def tick(due_at: Annotated[str, AfterValidator(slow)]) -> None:
    Tick(due=due_at)


TICKS = dag("schedule-kills", tick)

if __name__ == "__main__":
    Eventic.init(name="kills", database_url=sys.argv[1])
    Eventic.launch()
    print("launched", flush=True)  # noqa: T201 - what the test waits for
    threading.Event().wait()
