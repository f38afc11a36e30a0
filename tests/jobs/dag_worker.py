"""The worker that `test_dag_kills` kills: its DAG is drawn from a seed, so that every process has the same one."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from typing import Any

import psycopg

from eventic_core import Eventic, Record, Retry
from eventic_core.graph import Choice, NodeState, Outcome, TriggerRule
from eventic_core.jobs import DagRun, DeclaredJob, JobContext, Skip, dag, job

CALLS = os.environ.get("DAG_CALLS", os.devnull)
SIZE = 150
_calls = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
OUTCOMES: dict[str, Outcome] = {}
"""What each job does if it runs, for the pure model."""
ELEMENTS = 4
COPIES: dict[str, int] = {}
"""Records that a job makes, if not one: a mapped one makes one for each element."""
NESTED: set[str] = set()
"""Jobs that start a run of the inner DAG."""


class Made(Record, class_type="DagKillsMade"):
    """One for each job that completed."""

    job: str


@job
def inside() -> None:
    time.sleep(0.02)
    Made(job="inside")


INNER = dag("kills: inner", inside)


def _noted(name: str, context: JobContext) -> None:
    os.write(_calls, f"{name} {context.attempt} {time.time():.6f} {os.getpid()}\n".encode())
    time.sleep(0.02)
    Made(job=name)


def _job(name: str, upstream: list[str], followers: list[str], chance: random.Random) -> DeclaredJob[Any, Any]:
    luck = chance.random()
    branches = luck >= 0.96 and bool(followers)
    chosen = chance.sample(followers, chance.randint(1, len(followers))) if branches else []
    options: dict[str, Any] = {
        "name": name,
        "depends_on": upstream,
        "rule": chance.choice(list(TriggerRule)) if chance.random() < 0.4 else TriggerRule.ALL_SUCCESS,
        "retry": {ConnectionError: Retry(max_attempts=9, delay_seconds=0.01)},
        "branch": branches,
    }
    if 0.2 <= luck < 0.26:
        return _mapped(name, options)
    return _plain(name, luck, chosen, options)


def _mapped(name: str, options: dict[str, Any]) -> DeclaredJob[Any, Any]:
    COPIES[name] = ELEMENTS

    @job(**options, map="element", over=lambda: range(ELEMENTS))
    def work(element: int, context: JobContext) -> int:
        _noted(name, context)
        return element

    return work


def _plain(name: str, luck: float, chosen: list[str], options: dict[str, Any]) -> DeclaredJob[Any, Any]:
    fails_once, fails, skips = luck < 0.15, 0.15 <= luck < 0.17, 0.17 <= luck < 0.2
    is_nested = 0.26 <= luck < 0.3
    if is_nested:
        NESTED.add(name)
    if fails or skips:
        OUTCOMES[name] = NodeState.FAILED if fails else NodeState.SKIPPED
    elif chosen:
        OUTCOMES[name] = Choice(tuple(chosen))

    @job(**options)
    def work(context: JobContext) -> Any:
        _noted(name, context)
        if fails:
            raise ValueError(f"{name} is bad")
        if fails_once and context.attempt == 1:
            raise ConnectionError("try again")
        if skips:
            return Skip("nothing to do")
        return INNER.start() if is_nested else chosen or name

    return work


def _dag(seed: int) -> Any:
    chance = random.Random(seed)
    upstream = {
        f"n{number}": [
            f"n{other}"
            for other in chance.sample(range(max(0, number - 30), number), min(number, chance.randint(1, 3)))
        ]
        for number in range(SIZE)
    }
    followers: dict[str, list[str]] = {name: [] for name in upstream}
    for name, before in upstream.items():
        for other in before:
            followers[other].append(name)
    return dag("kills", *[_job(name, upstream[name], followers[name], chance) for name in upstream], concurrency=8)


KILLED = _dag(35)


@job
def poison(context: JobContext) -> None:
    os.write(_calls, f"{context.job} {context.attempt} {time.time():.6f} {os.getpid()}\n".encode())
    Made(job="poison")
    os.kill(os.getpid(), signal.SIGKILL)


@job(map="element", over=lambda: range(ELEMENTS))
def poisoned(element: int, context: JobContext) -> int:
    _noted("poisoned", context)
    if element == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return element


def _innocent(number: int) -> DeclaredJob[Any, Any]:
    return job(name=f"innocent {number}")(lambda: Made(job=f"innocent {number}") and None)


INNOCENT = [_innocent(number) for number in range(10)]


@job(rule="all_done", depends_on=[poison, poisoned, *INNOCENT])
def survived() -> None:
    Made(job="survived")


POISONED = dag("kills: poison", *INNOCENT[:5], poison, *INNOCENT[5:], poisoned, survived)

PATIENT = Retry(max_attempts=1000, delay_seconds=0)
"""Workers die so often over these jobs that they would be blamed."""


@job(retry=PATIENT)
def source() -> list[int]:
    Made(job="source")
    return list(range(ELEMENTS))


@job(retry=PATIENT, map="number", inputs={"number": source})
def spread(number: int) -> int:
    Made(job="spread")
    return number


@job(retry=PATIENT)
def nested(source: list[int]) -> DagRun:
    Made(job="nested")
    return INNER.start()


@job(retry=PATIENT)
def beside(source: list[int]) -> int:
    Made(job="beside")
    return Made.where(job="beside").count()  # which needs a transaction of its own


@job(retry=PATIENT)
def gathered(spread: list[int], nested: DagRun, beside: int) -> int:
    Made(job="gathered")
    return sum(spread) + beside


DIAMOND = dag("kills: diamond", source, spread, nested, beside, gathered)


def _die_at_statement(number: int) -> None:
    """Have this process killed just before or just after those who do its work have sent so many more statements."""
    left = [number]
    for cls, name in ((psycopg.Cursor, "execute"), (psycopg.Connection, "commit")):
        real = getattr(cls, name)

        def counted(*args: Any, _real: Any = real, **options: Any) -> Any:
            left[0] -= threading.current_thread().name.startswith("eventic-work")
            if left[0] == 0 and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            found = _real(*args, **options)
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(cls, name, counted)


if __name__ == "__main__":
    Eventic.init(name="kills", database_url=sys.argv[1])
    Eventic.launch()
    if "DAG_STATEMENTS" in os.environ:
        _die_at_statement(int(os.environ["DAG_STATEMENTS"]))
    print("launched", flush=True)  # noqa: T201 - what the test waits for
    threading.Event().wait()
