"""Metrics: what they say of a system and of a process, that they parse, stay bounded, and do without a database."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from conftest import execute, until
from killing import SECONDS
from prometheus_client.parser import text_string_to_metric_families

from eventic_core import Eventic, Record, Retry, on
from eventic_core.automation import automation
from eventic_core.jobs import dag, job
from eventic_core.operations import metrics as module
from eventic_core.operations.metrics import render
from eventic_core.runtime import counts
from eventic_core.store.metrics import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator

QUEUE = Eventic.queue("measured", concurrency=2)
goes_on = threading.Event()


class MeasuredStory(Record):
    title: str = ""


class MeasuredNote(Record):
    title: str = ""


@on.create(MeasuredStory, name="measured_handler", retry=Retry(max_attempts=2, delay_seconds=0))
def broken(_story: MeasuredStory) -> None:
    raise ValueError("broken")


@Eventic.step(name="measured_wait")
def wait() -> None:
    assert goes_on.wait(SECONDS)


@Eventic.step(name="measured_flaky", retry=Retry(max_attempts=2, delay_seconds=0))
def flaky() -> None:
    raise ValueError("again")


@Eventic.workflow(name="measured_flow")
def flow() -> None: ...


@Eventic.workflow(name="measured_late_flow")
async def late_flow() -> None:
    raise ValueError("late")


@automation("measured", group_size=1, retry=Retry(max_attempts=1))
def measure(item: int) -> int:
    if item == 0:
        raise ValueError("zero")
    if item > 1:
        assert goes_on.wait(SECONDS)
    return item


@job
def measured_job() -> None: ...


DAG = dag("measured-dag", measured_job)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Parse the text; gives values by name and the values of the labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def fresh() -> dict[tuple[str, ...], float]:
    module._look_at.cache_clear()
    return samples(render())


def added(counter: counts.Counter, *values: str) -> int:
    return counter.read().get(values, 0)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """What waits ends with its test, however that goes."""
    goes_on.clear()
    yield
    goes_on.set()


def test_a_system_shows_what_waits_what_runs_and_who_works(workers: str) -> None:
    for _ in range(5):
        QUEUE.enqueue(wait)
    QUEUE.enqueue(flow, delay_seconds=100)
    run = measure.start(measure.batch("measured", [0, 1, 2, 3]))
    until(lambda: fresh().get(("eventic_automation_items", "failed")) == 1)
    until(lambda: fresh().get(("eventic_worker_running", "worker-0"), 0) >= 3)
    until(lambda: fresh().get(("eventic_automation_items", "completed")) == 1)
    shown = fresh()
    assert shown["eventic_up",] == 1
    assert shown["eventic_queue_depth", "measured", "delayed"] == 1
    assert (
        shown["eventic_queue_depth", "measured", "running"] + shown.get(("eventic_queue_depth", "measured", "ready"), 0)
        == 5
    )
    assert shown["eventic_queue_depth", "automation_measured", "running"] == 2
    assert shown["eventic_workers", "1", "alive"] == 1
    assert shown["eventic_worker_beat_age_seconds", "worker-0"] < SECONDS
    assert shown["eventic_automation_runs", "going"] == 1
    assert [shown["eventic_automation_items", state] for state in ("pending", "completed", "failed")] == [2, 1, 1]
    assert shown["eventic_database_size_bytes",] > 1e6
    assert shown["eventic_record_versions_written_total",] > 10
    assert 0 < shown["eventic_connections",] < shown["eventic_connections_limit",]
    assert not [labels for labels in shown if labels[0] == "eventic_unread"]
    goes_on.set()
    run.wait()
    until(lambda: ("eventic_queue_depth", "measured", "running") not in fresh())


def test_a_process_counts_what_it_did_and_how_it_ended(workers: str) -> None:
    goes_on.set()
    before = {counter: counter.read() for counter in counts.COUNTERS}

    def more(counter: counts.Counter, *values: str) -> int:
        return added(counter, *values) - before[counter].get(values, 0)

    QUEUE.enqueue(flow)
    flow()
    QUEUE.enqueue(late_flow)
    QUEUE.enqueue(flaky)
    MeasuredStory()
    DAG.start().wait()
    measure.start(measure.batch("counted", [0, 1])).wait()
    until(lambda: more(counts.WORK_ENDED, "run", "measured", "failed"))
    until(lambda: more(counts.WORK_ENDED, "workflow", "measured", "failed"))
    until(lambda: more(counts.DEAD_LETTERS, "measured_handler"))
    until(lambda: more(counts.WORK_ENDED, "workflow", "measured", "done"))
    assert more(counts.WORK_ENDED, "run", "measured", "retried") == 1
    assert more(counts.WORK_ENDED, "workflow", "eventic_direct", "done") == 1
    assert more(counts.RETRIES, "step") == 1
    assert more(counts.RETRIES, "handler") == 1
    assert more(counts.ATTEMPTS, "handler", "failed") == 2
    assert more(counts.ATTEMPTS, "item", "done") == 1
    assert more(counts.ATTEMPTS, "item", "failed") == 1
    assert more(counts.ATTEMPTS, "job", "done") == 1
    until(lambda: fresh().get(("eventic_dead_letters_open", "measured_handler")))
    text = render(system=False)
    assert samples(text)["eventic_work_duration_seconds_count", "workflow"] >= 2
    assert samples(text)["eventic_work_duration_seconds_bucket", "workflow", "+Inf"] >= 2


def test_a_conflict_is_counted_and_the_attempt_made_again(workers: str) -> None:
    story = MeasuredNote()
    tries = []

    @Eventic.transaction(name="measured_conflict")
    def change(story_id: str) -> None:
        own = MeasuredNote.hydrate(story.id)
        if not tries:
            thread = threading.Thread(target=lambda: setattr(MeasuredNote.hydrate(story.id), "title", "theirs"))
            thread.start()
            thread.join()
        tries.append(1)
        own.title = f"ours {own.title}"

    before = added(counts.CONFLICTS, "transaction")
    QUEUE.enqueue(change, str(story.id)).result(timeout_seconds=SECONDS)
    assert added(counts.CONFLICTS, "transaction") == before + 1
    assert MeasuredNote.hydrate(story.id).title == "ours theirs"


def test_depth_stops_at_its_bound_and_labels_at_theirs(workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(
        workers,
        """insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, created_at, updated_at, priority)
           select 'deep ' || n, 'ENQUEUED', 'nobody knows', 'deep', 1, 1, 0 from generate_series(1, 2500) n""",
        """insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, created_at, updated_at, priority)
           select 'wide ' || n, 'ENQUEUED', 'nobody knows', 'wide_' || n, 1, 1, 0 from generate_series(1, 300) n""",
    )
    try:
        shown = fresh()
        assert shown["eventic_queue_depth", "deep", "ready"] == MOST
        assert shown["eventic_queue_oldest_ready_seconds", "deep"] > 1e9
        assert shown["eventic_queue_depth", "other", "ready"] >= 100
        assert len([labels for labels in shown if labels[0] == "eventic_queue_depth"]) <= 603
    finally:
        execute(workers, "delete from dbos.workflow_status where name = 'nobody knows'")
    counter = counts.Counter("test", "", "queue")
    for number in range(3000):
        counter.add(str(number))
    assert len(counter.read()) == 1001
    assert counter.read()["other",] == 2000


def test_every_metric_has_a_meaning_and_a_name_by_the_conventions(workers: str) -> None:
    families = list(text_string_to_metric_families(render()))
    assert len(families) > 20
    for family in families:
        assert family.name.startswith("eventic_")
        assert family.documentation
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
