"""Starting a run: what is refused, what a transaction takes back, several batches, and who knows the automation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from conftest import until
from runs import SECONDS, counted, executions, numbered, statuses

from eventic_core import DuplicateRegistration, Eventic, Invalid, NotRegistered
from eventic_core.automation import (
    Automation,
    Batch,
    BatchExecution,
    ExecutionStatus,
    Item,
    ItemContext,
    Run,
    automation,
    declared,
)
from eventic_core.runtime.process import process
from eventic_core.store.counters import WHOLE_RUN, CounterTable

S = ExecutionStatus
GATE = threading.Event()
CALLS: list[int] = []


@pytest.fixture(autouse=True)
def url(workers: str) -> Iterator[str]:
    GATE.set()
    CALLS.clear()
    yield workers
    GATE.set()


@automation("starting: counts")
def counts(item: dict[str, int]) -> int:
    CALLS.append(item["number"])
    return item["number"]


def another(item: dict[str, int]) -> int:
    """Is refused as an automation of a name that is taken."""
    return 0


@automation("starting: others")
def others(item: dict[str, int]) -> int:
    return item["number"]


@automation("starting: fails")
def fails(item: dict[str, int]) -> None:
    raise ValueError("always")


@automation("starting: gated", concurrency=1, group_size=1)
def gated(item: dict[str, int], context: ItemContext) -> int:
    CALLS.append(item["number"])
    assert GATE.wait(SECONDS)
    return item["number"]


def batch(count: int = 3, how: Any = counts) -> Batch:
    made: Batch = how.batch(str(uuid4()), numbered(count))
    return made


def empty() -> Batch:
    made = Batch(automation_id=counts.stored().id, name=str(uuid4()))
    assert Item.where(batch_id=made.id).count() == 0
    return made


def rows(url: str) -> list[int]:
    """Count what starting a run writes: versions, counters and work; not what handlers do about runs before."""
    tables = (
        "eventic.records where class_type in ('Automation', 'Run', 'BatchExecution', 'ItemExecution')",
        "eventic.run_counters",
        "dbos.workflow_status where name in ('eventic.automation_run', 'eventic.items')",
    )
    with psycopg.connect(url) as connection:
        found = [connection.execute(f"select count(*) from {table}").fetchone() for table in tables]
    return [row[0] for row in found if row is not None]


# -- what is refused


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        (list, "needs a batch"),
        (lambda: [batch()] * 2, "named twice"),
        (lambda: [batch(), batch(how=others)], "belongs to automation"),
        (lambda: empty(), "there is no item in"),
        (lambda: [empty(), empty()], "there is no item in"),
    ],
    ids=["no batch", "a batch twice", "a batch of another automation", "an empty batch", "two empty batches"],
)
def test_what_cannot_be_run_over_is_refused_and_nothing_is_stored(
    url: str, chosen: Callable[[], Any], named: str
) -> None:
    counts.stored()
    batches = chosen()
    before = rows(url)
    with pytest.raises(Invalid, match=named):
        counts.start(batches)
    assert rows(url) == before


@pytest.mark.parametrize("tolerated", ["many", -1, "101%", True])
def test_what_is_no_number_of_failures_is_refused_and_nothing_is_stored(url: str, tolerated: Any) -> None:
    made = batch()
    before = rows(url)
    with pytest.raises(Invalid, match="tolerated_failures"):
        counts.start(made, tolerated_failures=tolerated)
    assert rows(url) == before


def test_an_empty_batch_beside_a_full_one_is_completed() -> None:
    full, none = batch(2), empty()
    run = counts.start([none, full]).wait(timeout_seconds=SECONDS)
    assert statuses(run) == ["COMPLETED"] * 2
    assert [part.status for part in BatchExecution.where(run_id=run.id)] == [S.COMPLETED] * 2


# -- transactions


class _Undone(Exception):
    """Why a unit of work is undone."""


def test_a_run_started_in_a_unit_of_work_that_fails_is_not_stored_and_does_not_run(url: str) -> None:
    made = batch()
    before = rows(url)
    with pytest.raises(_Undone), Eventic.unit_of_work():
        run = counts.start(made)
        raise _Undone
    assert rows(url) == before
    assert not run.is_stored
    assert counts.start(made).wait(timeout_seconds=SECONDS).status == S.COMPLETED
    assert sorted(CALLS) == [1, 2, 3]


def test_a_run_started_in_a_part_of_a_unit_of_work_that_fails_is_taken_back_alone(url: str) -> None:
    made = batch()
    before = rows(url)
    with Eventic.unit_of_work():
        with pytest.raises(_Undone), Eventic.unit_of_work():
            counts.start(made)
            raise _Undone
        kept = Automation(name=str(uuid4()))
    assert rows(url) == [before[0] + 1, *before[1:]]
    assert Automation.hydrate(kept.id).name == kept.name


def test_a_start_that_fails_leaves_the_rest_of_the_unit_of_work(url: str) -> None:
    made, none = batch(), empty()
    runs = Run.where().count()
    with Eventic.unit_of_work():
        run = counts.start(made)
        with pytest.raises(Invalid, match="there is no item"):
            counts.start(none)
    assert run.wait(timeout_seconds=SECONDS).status == S.COMPLETED
    assert Run.where().count() == runs + 1
    assert BatchExecution.where(batch_id=none.id).count() == 0


def test_a_run_started_in_a_unit_of_work_runs_when_that_commits() -> None:
    with Eventic.unit_of_work():
        run = counts.start(counts.batch(str(uuid4()), numbered(2)), correlation_id="with its batch")
        assert CALLS == []
    run.wait(timeout_seconds=SECONDS)
    assert (run.status, run.correlation_id, sorted(CALLS)) == (S.COMPLETED, "with its batch", [1, 2])


# -- several batches


def test_the_numbers_of_a_second_batch_go_on_after_the_first_and_each_part_has_counters() -> None:
    first, second = batch(3), batch(2)
    run = counts.start([first, second]).wait(timeout_seconds=SECONDS)
    found = executions(run)
    assert [execution.number for execution in found] == [1, 2, 3, 4, 5]
    assert [execution.result_payload for execution in found] == [1, 2, 3, 1, 2]
    parts = {part.batch_id: part for part in BatchExecution.where(run_id=run.id)}
    of_part = [parts[made.id].id for made in (first, second)]
    assert [execution.batch_execution_id for execution in found] == [of_part[0]] * 3 + [of_part[1]] * 2
    assert counted(run.progress()) == {"COMPLETED": 5}
    counters = CounterTable(process().store.database).read(run.id)
    assert {found.batch_execution_id: (found.total, found.planned, found.completed) for found in counters} == {
        WHOLE_RUN: (5, 0, 5),
        of_part[0]: (3, 3, 3),
        of_part[1]: (2, 2, 2),
    }


def test_a_batch_may_take_part_in_several_runs() -> None:
    made = batch(2)
    one, other = (counts.start(made) for _ in range(2))
    for run in (one, other):
        assert statuses(run.wait(timeout_seconds=SECONDS)) == ["COMPLETED"] * 2
    assert {execution.id for execution in executions(one)}.isdisjoint(execution.id for execution in executions(other))


# -- who knows the automation


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(DuplicateRegistration, match="Two automations are called 'starting: counts'"):
        automation("starting: counts")(another)
    assert declared.find("starting: counts") is counts


def test_a_run_whose_automation_is_not_declared_here_is_not_redriven(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fails.start(batch(2, fails)).wait(timeout_seconds=SECONDS)
    before = rows(url)
    monkeypatch.delitem(declared._declared, "starting: fails")
    with pytest.raises(NotRegistered, match="'starting: fails' is declared in this process"):
        run.redrive()
    assert rows(url) == before
    assert (run.status, run.attempt) == (S.FAILED, 1)
    monkeypatch.undo()
    assert run.redrive() == 2
    assert run.wait(timeout_seconds=SECONDS).attempt == 2


@pytest.mark.parametrize("begun", [False, True])
def test_a_worker_that_does_not_know_the_automation_leaves_its_work_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, begun: bool
) -> None:
    caplog.set_level(logging.WARNING, "eventic")
    if begun:
        GATE.clear()
        run = gated.start(batch(3, gated))
        until(lambda: CALLS)
        monkeypatch.delitem(declared._declared, gated.name)
        GATE.set()
    else:
        monkeypatch.delitem(declared._declared, gated.name)
        run = gated.start(batch(3, gated))
    until(lambda: "'starting: gated' is declared in this process" in caplog.text)
    assert run.progress().done < 3
    monkeypatch.undo()
    run.wait(timeout_seconds=SECONDS)
    assert statuses(run) == ["COMPLETED"] * 3
    assert [execution.attempt_count for execution in executions(run)] == [1] * 3
    assert sorted(CALLS) == [1, 2, 3]
