"""What retention must leave alone, or wait for, while others work: pinned versions, forks, races, batches, the past."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from ageing import age, caught_up, rows, rule, settle_workflows

from eventic_core import Eventic, Record, Ref
from eventic_core.automation import Run, automation
from eventic_core.errors import HistoryRemoved, RecordNotFound, VersionConflict
from eventic_core.jobs import DagRun, dag, job
from eventic_core.operations import erase, purge, sweeps
from eventic_core.operations.retention import apply
from eventic_core.runtime import codec

QUEUE = Eventic.queue("needs.work")


class Note(Record, class_type="NeedsNote", unique=["name"]):
    name: str
    text: str | None = None


@Eventic.workflow(name="needs.tell")
def tell(note: Note) -> str | None:
    return note.text


@Eventic.workflow(name="needs.parent")
def parent(children: int) -> int:
    return sum(QUEUE.enqueue(leaf).result() for _ in range(children))


@Eventic.workflow(name="needs.leaf")
def leaf() -> int:
    return 1


@automation("needs: notes")
def notes(item: dict[str, str]) -> str:
    note = Note.where(name=item["name"]).all()[0]
    note.text = "by the run"
    return "done"


@job(name="needs numbers")
def numbers() -> list[int]:
    return [1, 2, 3]


@job(name="needs squared", map="number", inputs={"number": numbers})
def squared(number: int) -> int:
    return number * number


@job(name="needs total", inputs={"of": squared})
def total(of: list[int]) -> int:
    return sum(of)


SQUARES = dag("needs: squares", numbers, squared, total)


@pytest.fixture
def launched(eventic: str) -> str:
    """A database of the test's own, with workers."""
    Eventic.launch()
    caught_up(eventic)
    return eventic


def waiting(url: str, work: Callable[[], Any]) -> threading.Thread:
    """Begin to do something in a thread; gives that once it waits for a lock."""
    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 100
    while not rows(
        url, "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    ):
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return thread


def test_a_version_that_unfinished_work_was_given_stays_however_old(launched: str) -> None:
    note = Note(name="a", text="first")
    note.text = "second"
    note.text = "third"
    age(launched)
    work = QUEUE.enqueue(tell, note.history()[1], delay_seconds=3600)
    history = rule("history", of="NeedsNote")
    assert apply(history).count == 1
    rows(launched, "update dbos.workflow_status set delay_until_epoch_ms = 0 where workflow_uuid = %s", work.id)
    assert work.result(timeout_seconds=100) == "second"
    assert apply(history).count == 1


def test_versions_stay_that_were_current_since_a_run_that_goes_on_first_began(launched: str) -> None:
    note = Note(name="a", text="first")
    run = SQUARES.start().wait(timeout_seconds=100)
    settle_workflows(launched)
    note.text = "second"
    age(launched)
    rows(launched, "update eventic.dag_runs set state = 'paused', started_at = started_at - interval '100 days'")
    assert apply(rule("history", of="NeedsNote")).count == 0
    rows(launched, "update eventic.dag_runs set state = 'ended' where run_id = %s", run.id)
    assert apply(rule("history", of="NeedsNote")).count == 1


def test_a_fork_and_the_run_it_is_of_each_go_when_their_time_has_come(launched: str) -> None:
    run = SQUARES.start().wait(timeout_seconds=100)
    settle_workflows(launched)
    age(launched)
    fork = run.fork("needs total").wait(timeout_seconds=100)
    settle_workflows(launched)
    assert apply(rule("runs")).count == 1
    assert [one.id for one in DagRun.where().all()] == [fork.id]
    assert fork.fork("needs total").wait(timeout_seconds=100).result("needs total") == 14
    settle_workflows(launched)
    age(launched)
    assert apply(rule("runs", of="needs: squares")).count == 3
    assert Run.where().count() == 0


def test_what_a_mapped_job_made_goes_with_its_run_and_what_somebody_loaded_stays(launched: str) -> None:
    loaded = notes.batch("mine", [{"name": "a"}])
    Note(name="a")
    notes.start(loaded).wait(timeout_seconds=100)
    SQUARES.start().wait(timeout_seconds=100)
    settle_workflows(launched)
    age(launched)
    assert apply(rule("runs"), batch_rows=2).count == 3
    kept = rows(
        launched,
        "select class_type, count(*) from eventic.records "
        "where class_type in ('Batch', 'Item', 'BatchExecution', 'ItemExecution') group by 1 order by 1",
    )
    assert kept == [("Batch", 1), ("Item", 1)]
    assert notes.start(loaded).wait(timeout_seconds=100).status == "COMPLETED"


def test_versions_of_the_application_go_with_their_last_run(launched: str) -> None:
    QUEUE.enqueue(leaf).result()
    settle_workflows(launched)
    rows(
        launched,
        "insert into dbos.application_versions (version_id, version_name, version_timestamp) "
        "values ('a', 'of a run', 1), ('b', 'of nobody', 2)",
    )
    rows(launched, "update dbos.workflow_status set application_version = 'of a run'")
    before = rows(launched, "select count(*) from dbos.application_versions")[0][0]
    apply(rule("workflows"))
    left = {name for (name,) in rows(launched, "select version_name from dbos.application_versions")}
    assert len(left) == before - 1
    assert "of a run" in left
    age(launched)
    apply(rule("workflows"))
    assert len(rows(launched, "select 1 from dbos.application_versions")) == before - 2


def test_a_record_that_is_brought_back_meanwhile_is_not_purged(eventic: str) -> None:
    note = Note(name="a", text="kept")
    note.delete()
    gone: list[int] = []
    with Eventic.unit_of_work() as unit:
        Note.restore(note.id)
        unit.flush()
        thread = waiting(eventic, lambda: gone.append(purge("NeedsNote")))
    thread.join()
    assert gone == [0]
    now = Note.hydrate(note.id)
    assert [past.version for past in now.history()] == [2, 1, 0]
    assert Note.where(name="a").count() == 1


def test_a_family_goes_whole_or_not_at_all(launched: str) -> None:
    runs = [QUEUE.enqueue(parent, 3) for _ in range(2)]
    assert [run.result(timeout_seconds=100) for run in runs] == [3, 3]
    settle_workflows(launched)
    age(launched)
    with psycopg.connect(launched) as connection:
        connection.execute(
            "update dbos.workflow_status set status = 'ENQUEUED', queue_name = 'needs.nobody' where workflow_uuid = %s",
            [runs[0].id],
        )
        counts: list[int] = []
        thread = waiting(launched, lambda: counts.append(apply(rule("workflows"), batch_rows=1).count))
    thread.join()
    assert counts == [4]
    left = rows(launched, "select workflow_uuid from dbos.workflow_status")
    assert len(left) == 4
    assert all(run.startswith(runs[0].id) for (run,) in left)


def test_a_batch_smaller_than_a_family_takes_all_of_it(launched: str) -> None:
    QUEUE.enqueue(parent, 3).result(timeout_seconds=100)
    settle_workflows(launched)
    age(launched)
    sweep = sweeps.WorkflowSweep(None, ["SUCCESS"], datetime.now(UTC))
    from eventic_core.records.editing import edit_scope

    with edit_scope():
        assert sweep.batch(1).count == 4


def test_the_past_that_was_removed_is_an_error_that_says_since_when_there_is_one(launched: str) -> None:
    note = Note(name="a", text="first")
    age(launched, 10)
    young = Note(name="b")
    note.text = "second"
    age(launched, 100)
    moment = datetime.now(UTC) - timedelta(days=105)
    assert [past.text for past in Note.as_of(moment).where().all()] == ["first"]
    assert apply(rule("history", of="NeedsNote")).count == 1
    query = Note.as_of(moment).where()
    for read in (query.all, query.count, lambda: list(query), lambda: query.page(1)):
        with pytest.raises(HistoryRemoved, match="whole since"):
            read()
    assert Note.as_of(datetime.now(UTC)).where().count() == 2
    argument = f'{{"$": "record", "t": "NeedsNote", "v": ["{note.id}", 0]}}'  # of a run enqueued in those days
    for read in (
        lambda: Note.hydrate(note.id, version=0),
        Ref(note, version=0).get,
        lambda: note.diff(0, 1),
        lambda: codec.loads(argument),
    ):
        with pytest.raises(HistoryRemoved, match="retention has removed"):
            read()
    with pytest.raises(HistoryRemoved, match="retention has removed"):
        Note.as_of(moment).hydrate(note.id)
    for read in (lambda: Note.hydrate(note.id, version=9), lambda: Note.as_of(moment).hydrate(young.id)):
        with pytest.raises(RecordNotFound) as caught:
            read()
        assert not isinstance(caught.value, HistoryRemoved)


def test_a_run_whose_past_was_removed_is_not_undone_or_replayed_as_if_it_had_none(launched: str) -> None:
    note = Note(name="a", text="before")
    run = notes.start(notes.batch("one", [{"name": "a"}])).wait(timeout_seconds=100)
    settle_workflows(launched)
    age(launched)
    assert apply(rule("history", of="NeedsNote")).count == 1
    report = run.undo()
    assert (report.restored, report.conflict_count) == (0, 1)
    assert Note.hydrate(note.id).text == "by the run"
    assert run.started_at is not None
    assert run.replay(as_of=run.started_at - timedelta(days=100)).diverged == 1
    apply(rule("history"))
    with pytest.raises(HistoryRemoved, match="cannot be replayed"):
        run.replay()


def test_nobody_goes_back_to_a_value_that_was_erased_from_the_past(eventic: str) -> None:
    note = Note(name="a", text="secret value")
    note.text = None
    erase(note.id, fields=["text"])
    with pytest.raises(VersionConflict):
        note.text = "secret value"
    assert rows(eventic, "select 1 from eventic.records where data::text like '%%secret value%%'") == []


def test_an_erasure_waits_for_who_writes_the_record_and_finds_what_that_wrote(eventic: str) -> None:
    note = Note(name="a", text="secret value")
    with Eventic.unit_of_work() as unit:
        again = Note.hydrate(note.id)
        again.text = "secret value, again"
        unit.flush()
        thread = waiting(eventic, lambda: erase(note.id, fields=["text"]))
    thread.join()
    assert [past.text for past in Note.hydrate(note.id).history()] == [None, None, None]
