"""The worker that `test_dag_kills` kills: its DAG is drawn from a seed, so that every process has the same one."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from typing import Any

from eventic_core import Eventic, Record, Retry
from eventic_core.graph import Choice, NodeState, Outcome, TriggerRule
from eventic_core.jobs import DeclaredJob, JobContext, Skip, dag, job

CALLS = os.environ.get("DAG_CALLS", os.devnull)
SIZE = 150
_calls = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
OUTCOMES: dict[str, Outcome] = {}
"""What each job does if it runs, for the pure model."""


class Made(Record, class_type="DagKillsMade"):
    """One for each job that completed."""

    job: str


def _job(name: str, upstream: list[str], followers: list[str], chance: random.Random) -> DeclaredJob[Any, Any]:
    luck = chance.random()
    fails_once, fails, skips = luck < 0.15, 0.15 <= luck < 0.17, 0.17 <= luck < 0.2
    branches = luck >= 0.96 and bool(followers)
    chosen = chance.sample(followers, chance.randint(1, len(followers))) if branches else []
    if fails:
        OUTCOMES[name] = NodeState.FAILED
    elif skips:
        OUTCOMES[name] = NodeState.SKIPPED
    elif branches:
        OUTCOMES[name] = Choice(tuple(chosen))

    @job(
        name=name,
        depends_on=upstream,
        rule=chance.choice(list(TriggerRule)) if chance.random() < 0.4 else TriggerRule.ALL_SUCCESS,
        retry={ConnectionError: Retry(max_attempts=9, delay_seconds=0.01)},
        branch=branches,
    )
    def work(context: JobContext) -> Any:
        os.write(_calls, f"{name} {context.attempt} {time.time():.6f} {os.getpid()}\n".encode())
        time.sleep(0.02)
        Made(job=name)
        if fails:
            raise ValueError(f"{name} is bad")
        if fails_once and context.attempt == 1:
            raise ConnectionError("try again")
        if skips:
            return Skip("nothing to do")
        return chosen if branches else name

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


KILLED = _dag(7)

if __name__ == "__main__":
    Eventic.init(name="kills", database_url=sys.argv[1])
    Eventic.launch()
    print("launched", flush=True)  # noqa: T201 - what the test waits for
    threading.Event().wait()
