"""The second worker of `test_job_limits`: jobs with limits, which note in a file when they begin and end."""

from __future__ import annotations

import os
import sys
import threading
import time

from eventic_core import Eventic, Retry
from eventic_core.jobs import JobContext, dag, job
from eventic_core.runtime import takeover

CALLS = os.environ.get("LIMIT_CALLS", os.devnull)
_calls = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
API = Eventic.queue("limits_api", limit=1)


def noted(context: JobContext) -> None:
    """Take a while, and note both ends of it."""
    for sign in ("+", "-"):
        os.write(_calls, f"{context.job} {sign} {os.getpid()}\n".encode())
        time.sleep(0.05)


@job(name="two", concurrency=2, retry=Retry(max_attempts=2, delay_seconds=0.1))
def two(context: JobContext) -> None:
    noted(context)
    if context.attempt == 1:
        raise ValueError("once more")


@job(name="one")
def free(context: JobContext) -> None:
    noted(context)


TWO = dag("limits: two", two, free)
RATED = dag("limits: rated", job(name="rated", rate=(2, 1.0))(lambda: None), free)
MANY = dag(
    "limits: many", *[job(name=f"many {n}", rate=(100, 1.0) if n in {4, 11} else None)(noted) for n in range(12)]
)
SHARED = dag("limits: shared", *[job(name=f"shared {n}", queue=API)(noted) for n in range(3)])

STALLED_SECONDS = 120.0
"""A machine short of memory may keep an idle worker from beating for longer than usual; its jobs, done again elsewhere,
would run beside their limits, which is not the subject here."""

if __name__ == "__main__":
    takeover.STALLED_SECONDS = STALLED_SECONDS
    Eventic.init(name="limits", database_url=sys.argv[1])
    Eventic.launch()
    print("launched", flush=True)  # noqa: T201 - what the test waits for
    threading.Event().wait()
