"""The same thing asked for at once from many threads and processes is done once; so is what is cancelled as it ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chaos_load import ChaosMade, follow, queue, story
from faults import Workers, check, connected, until
from oracles import ALWAYS, WHEN_QUIET

from eventic_core.errors import Conflict, DuplicateKey
from eventic_core.operations.acts import OperatorAct, record_act
from eventic_core.runtime import runs

THREADS, KEYS, RACES = 8, 5, 8
ENQUEUES = """
import os, sys
os.environ["CHAOS_URL"] = sys.argv[1]
from concurrent.futures import ThreadPoolExecutor
from chaos_load import follow, queue
from eventic_core import Eventic
Eventic.init(name="twin", database_url=sys.argv[1], pool_size=2)
with ThreadPoolExecutor(4) as pool:
    for number in range(int(sys.argv[2])):
        asked = [pool.submit(queue.enqueue, follow, f"key-{number}", run_id=f"key-{number}") for _ in range(4)]
        assert {each.result().id for each in asked} == {f"key-{number}"}
Eventic.shutdown()
"""


@pytest.fixture
def workers(migrated_url: str, tmp_path: Path) -> Iterator[Workers]:
    with connected(migrated_url, tmp_path) as found:
        yield found


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make calls from as many threads at the same moment; gives what each returned or raised."""
    gate = threading.Barrier(len(calls))

    def call(made: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return made()
        except Exception as error:  # noqa: BLE001 - it is the outcome
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def test_runs_enqueued_by_one_key_from_threads_and_processes_are_done_once(workers: Workers) -> None:
    workers.start()
    script = [sys.executable, "-c", ENQUEUES, workers.url, str(KEYS)]
    twins = [subprocess.Popen(script, cwd=Path(__file__).parent) for _ in range(2)]
    for number in range(KEYS):
        made = at_once([partial(queue.enqueue, follow, f"key-{number}", run_id=f"key-{number}")] * THREADS)
        assert {each.id for each in made} == {f"key-{number}"}
    assert [twin.wait(100) for twin in twins] == [0, 0]
    with pytest.raises(Conflict):
        queue.enqueue(follow, "something else", run_id="key-0")
    until(lambda: all(runs.get_run(f"key-{number}").status == "SUCCESS" for number in range(KEYS)), workers)
    assert sorted(each.name for each in ChaosMade.where().all()) == sorted(f"followed key-{n}" for n in range(KEYS))
    check(workers.url, ALWAYS, WHEN_QUIET)


def test_runs_that_are_cancelled_as_they_end_come_to_one_end_that_stays(workers: Workers) -> None:
    workers.start()
    workers.ready()
    said: Counter[str] = Counter()
    for number in range(RACES):
        handle = queue.enqueue(story, f"race-{number}", run_id=f"race-{number}")
        threading.Event().wait(number * 0.03)
        for outcome in at_once([partial(runs.cancel, handle.id)] * 3):
            assert outcome == "CANCELLED" or isinstance(outcome, Conflict), outcome
        status = runs.get_run(handle.id).status
        assert status in ("CANCELLED", "SUCCESS")
        said[status] += 1
    assert said["CANCELLED"]
    until(lambda: not [run for run in runs.list_runs(limit=100) if run.status in ("ENQUEUED", "PENDING")], workers)
    after = Counter(runs.get_run(f"race-{number}").status for number in range(RACES))
    assert after == said
    check(workers.url, ALWAYS, WHEN_QUIET)


def test_an_operators_double_click_is_one_act_on_record(workers: Workers) -> None:
    acts = at_once([lambda: record_act("queue.pause", "chaos", request_key="click-1")] * THREADS)
    assert Counter(type(each) for each in acts) == {OperatorAct: 1, DuplicateKey: THREADS - 1}
    assert OperatorAct.where(request_key="click-1").count() == 1
