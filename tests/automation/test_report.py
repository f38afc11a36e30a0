"""A report tells what came of a run's items, and results are streamed out in their order."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core import BlockingInLoop, Eventic, Invalid, RunNotFound
from eventic_core.automation.definitions import Automation
from eventic_core.automation.executions import ItemExecution
from eventic_core.automation.report import report, results
from eventic_core.automation.run import Run
from eventic_core.automation.status import ExecutionStatus
from eventic_core.records import current_store

BATCH = uuid4()


@pytest.fixture
def run_id(eventic: str) -> UUID:
    return uuid4()


def pending(run_id: UUID, number: int | None, **values: Any) -> ItemExecution:
    return ItemExecution(run_id=run_id, batch_execution_id=BATCH, item_id=uuid4(), number=number, **values)


def completed(run_id: UUID, number: int | None, result: Any = None) -> ItemExecution:
    execution = pending(run_id, number)
    execution.start()
    execution.complete(result)
    return execution


def failed(run_id: UUID, number: int | None, message: str, error_type: str | None = "ValueError") -> ItemExecution:
    execution = pending(run_id, number)
    execution.start()
    execution.fail(message, error_type=error_type)
    return execution


def test_items_are_counted_by_status_and_attempts(run_id: UUID) -> None:
    executions = [completed(run_id, 1), completed(run_id, 2)]
    failed(run_id, 3, "no")
    pending(run_id, 4)
    again = pending(run_id, 5, max_attempts=3)
    for _ in range(2):
        again.start()
        again.fail("later")
    pending(run_id, 6).skip("not wanted")
    completed(uuid4(), 1)
    found = report(run_id)
    assert found.total == 6
    assert found.statuses == {
        "PENDING": 1,
        "PROCESSING": 0,
        "RETRYING": 1,
        "COMPLETED": 2,
        "FAILED": 1,
        "CANCELLED": 0,
        "SKIPPED": 1,
    }
    assert found.attempts == {0: 2, 1: 3, 2: 1}
    assert found.started_at == executions[0].started_at
    assert found.finished_at is not None
    assert found.duration_seconds == (found.finished_at - found.started_at).total_seconds()
    assert found.throughput == pytest.approx(4 / found.duration_seconds)


def test_a_run_that_has_not_begun_has_no_duration(run_id: UUID) -> None:
    pending(run_id, 1)
    found = report(run_id)
    assert (found.started_at, found.finished_at, found.duration_seconds, found.throughput) == (None, None, None, None)
    assert (found.total, found.attempts, found.errors, found.error_groups) == (1, {0: 1}, (), 0)


def test_a_run_without_items_is_reported_and_an_unknown_one_is_not_found(eventic: str) -> None:
    run = Run(automation_id=Automation(name="reported").id)
    assert report(run.id).total == 0
    with pytest.raises(RunNotFound, match="Check the id"):
        report(uuid4())


ALIKE = {
    "numbers": ("timeout after 5 s on row 17", "timeout after 0.25 s on row 1,800"),
    "signs": ("balance -5 is below 0", "balance 12 is below 1.5"),
    "uuids": (f"no customer {uuid4()}", "no customer aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"),
    "moments": ("late since 2026-01-02T03:04:05", "late since 2025-12-31"),
    "ids": ("no user u17 in eu1", "no user abc9 in us2"),
    "single quotes": ("no column 'name' there", "no column 'first name' there"),
    "double quotes": ('cannot read "a.csv"', 'cannot read "other file.csv"'),
    "code": ("`x` is not defined", "`some.name` is not defined"),
}
DIFFERENT = {
    "words": ("connection refused", "connection reset"),
    "apostrophes": ("can't read the user's name", "can't write the user's name"),
    "absent": ("", "no"),
}


@pytest.mark.parametrize("messages", ALIKE.values(), ids=ALIKE.keys())
def test_messages_that_differ_in_numbers_ids_and_quotes_are_one_group(messages: tuple[str, str], run_id: UUID) -> None:
    for number, message in enumerate(messages, start=1):
        failed(run_id, number, message)
    [group] = report(run_id).errors
    assert (group.count, group.sample_numbers) == (2, (1, 2))
    assert group.message in messages


@pytest.mark.parametrize("messages", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_messages_that_say_something_else_are_groups_of_their_own(messages: tuple[str, str], run_id: UUID) -> None:
    for number, message in enumerate(messages, start=1):
        failed(run_id, number, message)
    assert sorted(group.message or "" for group in report(run_id).errors) == sorted(messages)


def test_errors_are_grouped_by_class_the_most_frequent_first(run_id: UUID) -> None:
    for number in range(10, 20):
        failed(run_id, number, f"no price for item {number}")
    failed(run_id, 3, "no price for item 3", error_type="KeyError")
    failed(run_id, 2, "x" * 5000, error_type=None)
    tried = pending(run_id, 1, max_attempts=2)
    tried.start()
    tried.fail("no price for item 1", error_type="ValueError")
    done = pending(run_id, 21, max_attempts=2)  # what failed before it was completed is no error of the run
    done.start()
    done.fail("no price for item 21", error_type="ValueError")
    done.start()
    done.complete()
    first, second, third = (found := report(run_id)).errors
    assert (first.error_type, first.count, first.first_number, first.last_number) == ("ValueError", 11, 1, 19)
    assert first.sample_numbers == (1, 10, 11, 12, 13)
    assert first.message == "no price for item 1"
    assert (second.error_type, second.count, len(second.message or "")) == (None, 1, 1000)
    assert (third.error_type, third.sample_numbers) == ("KeyError", (3,))
    assert found.error_groups == 3


def test_items_without_a_number_are_reported_too(run_id: UUID) -> None:
    failed(run_id, None, "no")
    [group] = report(run_id).errors
    assert (group.count, group.first_number, group.last_number, group.sample_numbers) == (1, None, None, ())


def letters(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def test_a_hundred_groups_of_errors_are_told_and_all_are_counted(run_id: UUID) -> None:
    with Eventic.unit_of_work():
        for number in range(120):
            failed(run_id, number, f"error {letters(number)}")
    found = report(run_id)
    assert (len(found.errors), found.error_groups) == (100, 120)
    assert [group.first_number for group in found.errors] == list(range(100))


def test_a_report_sees_what_its_unit_of_work_has_written(run_id: UUID) -> None:
    with Eventic.unit_of_work():
        completed(run_id, 1, "here")
        assert report(run_id).statuses["COMPLETED"] == 1
        assert len(list(results(run_id))) == 1


def test_a_deleted_item_is_not_reported(run_id: UUID) -> None:
    completed(run_id, 1)
    completed(run_id, 2).delete()
    assert report(run_id).total == 1
    assert len(list(results(run_id))) == 1


# -- results

VALUES = [None, 1.5, 2**70, "text, with \"quotes\"\nand 'lines'", {"b": [1, "é"], "a": None}]


def test_results_are_lines_of_json_in_the_order_of_the_items(run_id: UUID) -> None:
    executions = [completed(run_id, number, VALUES[number - 1]) for number in (3, 1, 5, 2, 4)]
    failed(run_id, 6, "no")
    lines = list(results(run_id))
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    found = [json.loads(line) for line in lines]
    assert [row["number"] for row in found] == [1, 2, 3, 4, 5]
    assert [row["result"] for row in found] == VALUES
    assert found[0] == {
        "number": 1,
        "item_id": str(executions[1].item_id),
        "status": "COMPLETED",
        "attempt_count": 1,
        "result": None,
        "error": None,
    }


def test_results_are_a_csv_file_with_their_values_as_json(run_id: UUID) -> None:
    for number, value in enumerate(VALUES, start=1):
        completed(run_id, number, value)
    header, *rows = csv.reader(io.StringIO("".join(results(run_id, format="csv")), newline=""))
    assert header == ["number", "item_id", "status", "attempt_count", "result", "error"]
    assert [json.loads(row[4]) for row in rows] == VALUES
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0][5] == ""


def test_results_of_several_statuses_keep_the_order_of_the_items(run_id: UUID) -> None:
    completed(run_id, 3)
    failed(run_id, 1, 'line one\n"two"')
    pending(run_id, 2).skip("not wanted")
    pending(run_id, 4)
    again = pending(run_id, 5, max_attempts=2)
    for end in (lambda: again.fail("first"), again.complete):
        again.start()
        end()
    wanted = ["COMPLETED", ExecutionStatus.FAILED, "SKIPPED", "FAILED"]
    found = [json.loads(line) for line in results(run_id, statuses=wanted)]
    assert [(row["number"], row["status"], row["error"]) for row in found] == [
        (1, "FAILED", 'line one\n"two"'),
        (2, "SKIPPED", "not wanted"),
        (3, "COMPLETED", None),
        (5, "COMPLETED", None),
    ]
    rows = list(csv.reader(io.StringIO("".join(results(run_id, statuses="FAILED", format="csv")), newline="")))
    assert rows[1][5] == 'line one\n"two"'


def test_a_run_without_results_gives_no_lines(run_id: UUID) -> None:
    assert list(results(run_id)) == []
    assert list(results(run_id, format="csv")) == ["number,item_id,status,attempt_count,result,error\r\n"]


BAD: dict[str, tuple[Callable[[UUID], object], str]] = {
    "status": (lambda run_id: results(run_id, statuses=["DONE"]), "'DONE' given; the statuses are PENDING"),
    "one status": (lambda run_id: results(run_id, statuses="completed"), "'completed' given"),
    "no status": (lambda run_id: results(run_id, statuses=[]), "none given"),
    "format": (lambda run_id: results(run_id, format="xml"), 'say "jsonl" or "csv"'),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_an_unknown_status_or_format_is_refused_before_the_first_line(
    call: Callable[[UUID], object], message: str, run_id: UUID
) -> None:
    with pytest.raises(Invalid, match=message):
        call(run_id)


def many(url: str, run_id: UUID, count: int, size: int) -> None:
    """Store completed executions as a worker's set-based statement would."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into eventic.records (version_id, id, version, class_type, data) "
            "select gen_random_uuid(), gen_random_uuid(), 0, 'ItemExecution', jsonb_build_object("
            "'run_id', %s::text, 'item_id', gen_random_uuid(), 'number', n, 'status', 'COMPLETED', 'attempt_count', 1, "
            "'result_payload', repeat('x', %s)) from generate_series(%s::int, 1, -1) n",
            (str(run_id), size, count),
        )


def test_results_are_streamed_without_keeping_them(run_id: UUID, eventic: str) -> None:
    many(eventic, run_id, 5000, 10_000)  # 50 MB of results
    tracemalloc.start()
    try:
        for expected, line in enumerate(results(run_id), start=1):
            assert line.startswith(f'{{"number": {expected}, ')
        assert expected == 5000
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


def test_results_left_half_read_free_their_connection(run_id: UUID, eventic: str) -> None:
    many(eventic, run_id, 1000, 10)
    store: Any = current_store()
    for _ in range(30):  # more than the pool has
        lines: Iterator[str] = results(run_id)
        assert '"number": 1,' in next(lines)
        lines.close()  # type: ignore[attr-defined]
    assert store.database.engine.pool.checkedout() <= 1


def test_a_report_reads_the_index_of_executions(run_id: UUID, eventic: str) -> None:
    from eventic_core.store.reports import _COUNTS, _RESULTS_OF_ONE

    for other in [uuid4() for _ in range(20)]:
        many(eventic, other, 500, 10)
    many(eventic, run_id, 500, 10)
    with psycopg.connect(eventic) as connection:
        connection.execute("analyze eventic.records")
        for sql, parameters in ((_COUNTS, (str(run_id),)), (_RESULTS_OF_ONE, (str(run_id), "COMPLETED"))):
            plan = connection.execute(f"explain {sql}", parameters).fetchall()
            assert any("records_item_executions" in line for (line,) in plan)


def test_reports_are_not_read_in_an_event_loop(run_id: UUID) -> None:
    async def read() -> None:
        with pytest.raises(BlockingInLoop):
            report(run_id)
        with pytest.raises(BlockingInLoop):
            list(results(run_id))
        assert (await asyncio.to_thread(report, run_id)).total == 1

    pending(run_id, 1)
    asyncio.run(read())
