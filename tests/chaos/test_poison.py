"""What kills or stops whoever takes it ends with an error and a reason; what nobody knows waits; others go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_load import ChaosMade, follow, kill_worker, queue
from faults import Workers, connected, insert_run, until

from eventic_core.errors import EventicError
from eventic_core.runtime import runs

BROKEN = '{"$":"call","v":{"args":['
OURS = ("eventic.run", "eventic.later", "eventic.handle", "eventic.items", "eventic.jobs", "eventic.schedule", "story")


@pytest.fixture
def workers(migrated_url: str, tmp_path: Path) -> Iterator[Workers]:
    with connected(migrated_url, tmp_path) as found:
        yield found


def ends_of(ids: list[str], workers: Workers) -> dict[str, str]:
    """Wait until these runs have ended; gives how."""
    found: dict[str, str] = {}

    def ended() -> bool:
        found.update({run: runs.get_run(run).status for run in ids})
        return all(status in ("SUCCESS", "ERROR", "CANCELLED") for status in found.values())

    until(ended, workers)
    return found


def test_a_payload_that_nobody_can_read_ends_with_an_error_and_others_go_on(workers: Workers) -> None:
    queue.enqueue(follow, "before", run_id="before")
    for name in OURS:
        insert_run(workers.url, f"broken {name}", name, payload=BROKEN)
        insert_run(workers.url, f"none {name}", name, payload=None)
    insert_run(workers.url, "broken async", "async_story", payload=BROKEN)
    queue.enqueue(follow, "after", run_id="after")
    workers.start()
    poisoned = [f"{what} {name}" for what in ("broken", "none") for name in OURS] + ["broken async"]
    found = ends_of(["before", "after", *poisoned], workers)
    assert {found["before"], found["after"]} == {"SUCCESS"}
    assert {found[run] for run in poisoned} == {"ERROR"}
    for run in poisoned:
        assert str(runs.get_run(run).error), run


def test_work_that_kills_whoever_does_it_is_given_up_with_the_count_and_others_are_done(workers: Workers) -> None:
    poison = queue.enqueue(kill_worker, "poison", run_id="poison")
    innocent = [queue.enqueue(follow, str(number), run_id=f"innocent-{number}").id for number in range(20)]
    workers.start()
    workers.start()
    found = ends_of([poison.id, *innocent], workers)
    assert found.pop("poison") == "ERROR"
    assert set(found.values()) == {"SUCCESS"}
    with pytest.raises(EventicError, match=r"died \d+ times"):
        poison.result()
    assert ChaosMade.where(name="poison").count() == 0
