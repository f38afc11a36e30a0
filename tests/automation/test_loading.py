"""A batch is loaded whole or not at all, from any rows, and every bad row is told with its number and paths."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import BaseModel, Field

from eventic_core import BlockingInLoop, DuplicateKey, Eventic, Invalid, InvalidRecord, Record
from eventic_core.automation.definitions import Automation, Batch, Item
from eventic_core.automation.loading import LoadedBatch, RaggedRow, csv_rows, json_rows, load_batch, load_batch_async
from eventic_core.automation.terminal import progress_bar

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "tags": {"items": {"type": "string"}}},
    "required": ["n"],
}


class Source(Record, class_type="LoadedSource"):
    name: str
    day: date
    price: Decimal = Decimal(1)


class Order(BaseModel):
    customer: str = Field(alias="customerId", min_length=1)
    amount: Decimal
    day: date | None = None


@pytest.fixture
def automation(eventic: str) -> Automation:
    return Automation(name="import", item_schema=SCHEMA)


@pytest.fixture
def free(eventic: str) -> Automation:
    return Automation(name="free")


def payloads(loaded: LoadedBatch) -> list[Any]:
    field = Item.fields.sequence_number
    return [item.payload for item in Item.where(batch_id=loaded.batch.id).order_by(field)]


def numbers(loaded: LoadedBatch) -> list[int]:
    return sorted(item.sequence_number for item in Item.where(batch_id=loaded.batch.id))


def stored(url: str) -> tuple[int, int]:
    """Give how many batches and items there are, in any version."""
    with psycopg.connect(url) as connection:
        query = "select count(*) filter (where class_type = 'Batch'), count(*) filter (where class_type = 'Item')"
        row = connection.execute(f"{query} from eventic.records").fetchone()
    assert row is not None
    return row[0], row[1]


def good(count: int) -> Iterator[dict[str, Any]]:
    return ({"n": number} for number in range(count))


# -- rows


def test_rows_become_items_numbered_from_one_in_their_order(automation: Automation) -> None:
    with Eventic.acting(actor="ada", reason="first import"):
        loaded = load_batch(automation, " Q1 ", good(3), payload={"source": "test"})
    batch = Batch.hydrate(loaded.batch.id)
    assert (batch.name, batch.automation_id, batch.payload) == ("Q1", automation.id, {"source": "test"})
    assert (loaded.count, loaded.bad_count, loaded.bad_rows) == (3, 0, ())
    assert payloads(loaded) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert numbers(loaded) == [1, 2, 3]
    item = Item.where(batch_id=batch.id).first()
    assert item is not None
    assert (item.version, item.stamp.actor, item.stamp.reason) == (0, "ada", "first import")
    assert batch.stamp.reason == "first import"
    assert loaded.batch.version == 0


def test_many_rows_are_loaded_from_a_generator(automation: Automation, eventic: str) -> None:
    seen: list[int] = []
    loaded = load_batch(automation, "many", good(12_345), progress=seen.append)
    assert loaded.count == 12_345
    assert stored(eventic) == (1, 12_345)
    assert numbers(loaded) == list(range(1, 12_346))
    assert seen == [*range(1000, 12_001, 1000), 12_345]


def test_any_json_value_is_a_row_where_no_schema_forbids_it(free: Automation) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [1, "text", None, [1, 2], {"at": moment, "price": Decimal("1.50"), "id": UUID(int=1)}, (1,), 2**70]
    assert payloads(load_batch(free, "values", rows)) == [
        1,
        "text",
        None,
        [1, 2],
        {"at": "2026-01-01T00:00:00Z", "price": "1.50", "id": str(UUID(int=1))},
        [1],
        2**70,
    ]


def test_a_dict_reader_gives_rows(free: Automation) -> None:
    reader = csv.DictReader(io.StringIO("a,b\n1,x\n2,y\n"))
    assert payloads(load_batch(free, "reader", reader)) == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def test_records_of_a_query_become_their_fields_and_id(free: Automation) -> None:
    sources = [Source(name=name, day=date(2026, 1, 2)) for name in ("a", "b", "c")]
    sources[1].properties.add(colour="red")
    query = Source.where().order_by(Source.fields.name)
    first, second, third = payloads(load_batch(free, "query", query))
    assert first == {"id": str(sources[0].id), "name": "a", "day": "2026-01-02", "price": "1"}
    assert second["properties"] == {"colour": "red"}
    assert third["id"] == str(sources[2].id)


def test_rows_may_be_read_from_the_transaction_the_batch_is_loaded_in(free: Automation) -> None:
    with Eventic.unit_of_work():
        Source.create_many({"name": str(n), "day": date(2026, 1, 2)} for n in range(6000))
        loaded = load_batch(free, "inside", ({"name": found.name} for found in Source.where()))
        assert loaded.count == 6000
    assert sorted(row["name"] for row in payloads(loaded)) == sorted(map(str, range(6000)))


def test_a_generator_reads_and_writes_as_its_caller(free: Automation, eventic: str) -> None:
    source = Source(name="a", day=date(2026, 1, 2))

    def rows() -> Iterator[Any]:
        for number in range(6000):
            if number % 1000 == 0:
                yield Source.hydrate(source.id)
            else:
                yield number
        with Eventic.unit_of_work():
            Source(name="b", day=date(2026, 1, 2))
            yield "last"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_batch(free, "generator", rows())
    assert stored(eventic) == (0, 0)
    assert sorted(found.name for found in Source.where()) == ["a", "b"]


def test_rows_are_taken_as_they_are_when_they_are_given(free: Automation) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {}
        for row["n"] in range(3):
            yield row

    assert payloads(load_batch(free, "one dict", rows())) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_memory_does_not_grow_with_the_rows(free: Automation) -> None:
    tracemalloc.start()
    try:
        loaded = load_batch(free, "large", ({"n": n, "text": "x" * 5000} for n in range(20_000)))  # 100 MB
        assert loaded.count == 20_000
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


# -- models


def test_a_model_judges_rows_and_its_json_is_stored(automation: Automation) -> None:
    rows = [{"customerId": "c1", "amount": "1.50", "day": "2026-01-02"}, Order(customerId="c2", amount=Decimal(2))]
    found = payloads(load_batch(automation, "orders", rows, item_model=Order))
    assert found == [
        {"customerId": "c1", "amount": "1.50", "day": "2026-01-02"},
        {"customerId": "c2", "amount": "2", "day": None},
    ]
    assert Order.model_validate(found[0]).amount == Decimal("1.50")


def test_a_row_the_model_refuses_is_told_with_every_path(automation: Automation, eventic: str) -> None:
    rows = [{"customerId": "c", "amount": 1}, {"customerId": "", "amount": "much"}]
    with pytest.raises(InvalidRecord, match=r"Row 2: payload\.customerId: ") as caught:
        load_batch(automation, "orders", rows, item_model=Order)
    assert [(error["row"], error["loc"]) for error in caught.value.errors] == [
        (2, ("payload", "customerId")),
        (2, ("payload", "amount")),
    ]
    assert stored(eventic) == (0, 0)


# -- bad rows

ROWS: list[Any] = [{"n": 1}, {"tags": ["a", 1]}, {"n": 3}, "text", {"n": 5, "raw": float("nan")}]


def test_a_bad_row_refuses_the_batch_with_its_number_and_paths(automation: Automation, eventic: str) -> None:
    with pytest.raises(InvalidRecord, match=r"^Row 2: .*Nothing was stored") as caught:
        load_batch(automation, "refused", ROWS)
    assert {(error["row"], error["loc"]) for error in caught.value.errors} == {
        (2, ("payload",)),
        (2, ("payload", "tags", 1)),
    }
    assert stored(eventic) == (0, 0)
    assert load_batch(automation, "refused", good(1)).count == 1


def test_bad_rows_are_set_aside_where_that_is_asked_for(automation: Automation) -> None:
    loaded = load_batch(automation, "partly", ROWS, bad_rows="set aside")
    assert (loaded.count, loaded.bad_count) == (2, 3)
    assert numbers(loaded) == [1, 3]
    assert payloads(loaded) == [{"n": 1}, {"n": 3}]
    told = {number: sorted(error.path for error in errors) for number, errors in loaded.bad_rows}
    assert told == {2: ["", "tags.1"], 4: [""], 5: ["raw"]}


def test_a_thousand_bad_rows_are_kept_and_all_are_counted(automation: Automation) -> None:
    rows = [{"n": 0}, *({"n": "bad"} for _ in range(1500))]
    loaded = load_batch(automation, "mostly bad", rows, bad_rows="set aside")
    assert (loaded.count, loaded.bad_count, len(loaded.bad_rows)) == (1, 1500, 1000)
    assert loaded.bad_rows[-1].number == 1001


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


UNSTORABLE: dict[str, Any] = {
    "NaN": {"a": float("nan")},
    "bytes": {"a": b"x"},
    "set": {"a": {1, 2}},
    "object": {"a": object()},
    "key": {None: ["beyond the header"]},
    "huge": {"a": "x" * 2_000_000},
    "NUL": {"a": "x\x00y"},
    "half a pair": {"a": "\ud800"},
    "cycle": cycle(),
}


@pytest.mark.parametrize("row", UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_what_json_cannot_hold_is_a_bad_row(row: Any, free: Automation, eventic: str) -> None:
    with pytest.raises(InvalidRecord, match=r"^Row 2: "):
        load_batch(free, "unstorable", [{}, row])
    assert stored(eventic) == (0, 0)
    loaded = load_batch(free, "unstorable", [{}, row, {}], bad_rows="set aside")
    assert (loaded.count, [bad.number for bad in loaded.bad_rows]) == (2, [2])


def test_a_batch_whose_rows_are_all_bad_or_none_is_refused(automation: Automation, eventic: str) -> None:
    with pytest.raises(InvalidRecord, match="All 2 rows") as caught:
        load_batch(automation, "bad", [{}, {}], bad_rows="set aside")
    assert caught.value.errors[0]["row"] == 1
    for rows in ([], iter(()), Source.where()):
        with pytest.raises(Invalid, match="would be empty"):
            load_batch(automation, "empty", rows)
    assert stored(eventic) == (0, 0)


# -- all or nothing


def test_a_name_that_is_taken_is_refused_before_any_row_is_read(automation: Automation, eventic: str) -> None:
    load_batch(automation, "taken", good(1))
    rows = good(5)
    with pytest.raises(DuplicateKey, match="taken"):
        load_batch(automation, "taken", rows)
    assert next(rows) == {"n": 0}
    assert stored(eventic) == (1, 1)
    assert load_batch(Automation(name="another"), "taken", good(1)).count == 1


class Broken(Exception):
    pass


def test_an_iterable_that_raises_stores_nothing_and_keeps_its_error(automation: Automation, eventic: str) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from good(70_000)
        raise Broken

    with pytest.raises(Broken):
        load_batch(automation, "broken", rows())
    assert stored(eventic) == (0, 0)


def test_a_load_in_a_unit_of_work_that_fails_stores_nothing(automation: Automation, eventic: str) -> None:
    with pytest.raises(Broken), Eventic.unit_of_work():
        load_batch(automation, "lost", good(6000))
        raise Broken
    assert stored(eventic) == (0, 0)


def test_a_load_that_fails_leaves_the_rest_of_the_unit_of_work(automation: Automation, eventic: str) -> None:
    with Eventic.unit_of_work():
        load_batch(automation, "kept", good(10))
        with pytest.raises(InvalidRecord):
            load_batch(automation, "lost", [*good(6000), {}])
    assert stored(eventic) == (1, 10)


def test_a_batch_for_no_stored_automation_or_with_a_bad_payload_reads_no_row(eventic: str) -> None:
    rows = good(2)
    with pytest.raises(InvalidRecord, match="Automation"):
        load_batch(Automation.draft({"name": "draft"}), "lost", rows)
    strict = Automation(name="strict", batch_schema={"required": ["source"]})
    with pytest.raises(InvalidRecord, match="source"):
        load_batch(strict, "lost", rows, payload={})
    assert next(rows) == {"n": 0}
    assert stored(eventic) == (0, 0)


@pytest.mark.parametrize("rows", ["file.csv", b"x", {"n": 1}, 5, None, Order(customerId="c", amount=Decimal(1))])
def test_what_is_no_iterable_of_rows_is_refused(rows: Any, automation: Automation, eventic: str) -> None:
    with pytest.raises(Invalid, match="iterable of rows"):
        load_batch(automation, "rows", rows)
    with pytest.raises(Invalid, match="set aside"):
        load_batch(automation, "rows", [], bad_rows="skip")  # type: ignore[arg-type]
    assert stored(eventic) == (0, 0)


KILLED = """
import os, sys
from eventic_core import Eventic
from eventic_core.automation.definitions import Automation
from eventic_core.automation.loading import load_batch

def rows():
    for number in range(10**9):
        if number == 20_000:
            print("under way", flush=True)
            sys.stdin.read()
        yield {"n": number}

Eventic.init(name="killed", database_url=os.environ["URL"])
load_batch(Automation.hydrate(sys.argv[1]), "killed", rows())
"""


def test_a_killed_load_leaves_nothing(automation: Automation, eventic: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(automation.id)],
        env={**os.environ, "URL": eventic},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 100
    while True:  # the name is free again once the server has noticed
        try:
            loaded = load_batch(automation, "killed", good(2))
            break
        except DuplicateKey:
            assert time.monotonic() < deadline
    assert loaded.count == 2
    assert stored(eventic) == (1, 2)


# -- in an event loop


def test_a_batch_is_loaded_without_blocking_the_loop(automation: Automation) -> None:
    async def load() -> LoadedBatch:
        with pytest.raises(BlockingInLoop, match="load_batch_async"):
            load_batch(automation, "loop", good(1))
        async with Eventic.unit_of_work():
            return await load_batch_async(automation, "loop", [*good(3), {}], bad_rows="set aside")

    loaded = asyncio.run(load())
    assert (loaded.count, loaded.bad_count) == (3, 1)
    assert numbers(loaded) == [1, 2, 3]


# -- CSV files


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_a_csv_file_gives_a_dict_of_texts_for_each_line(tmp_path: Path) -> None:
    path = write(tmp_path, 'name,note\r\nAda,"a, ""b""\nc"\r\n\r\nZoë,\r\n', "utf-8-sig")
    assert list(csv_rows(path)) == [{"name": "Ada", "note": 'a, "b"\nc'}, {"name": "Zoë", "note": ""}]
    assert list(csv_rows(str(write(tmp_path, "a;b\n1;2\n")), delimiter=";")) == [{"a": "1", "b": "2"}]


def test_a_ragged_line_is_a_bad_row(tmp_path: Path, free: Automation) -> None:
    path = write(tmp_path, "a,b\n1,2\n3\n4,5,6\n7,8\n")
    loaded = load_batch(free, "ragged", csv_rows(path), bad_rows="set aside")
    assert payloads(loaded) == [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}]
    assert [(number, errors[0].message) for number, errors in loaded.bad_rows] == [
        (2, "line 3 has 1 fields, the header has 2"),
        (3, "line 4 has 3 fields, the header has 2"),
    ]
    with pytest.raises(InvalidRecord, match="Row 2: payload: line 3 has 1 fields"):
        load_batch(free, "refused", csv_rows(path))


@pytest.mark.parametrize("text", ["", "\n", "a,a\n1,2\n", "a,\n1,2\n"])
def test_a_csv_file_without_a_header_that_names_each_column_is_refused(
    text: str, tmp_path: Path, free: Automation, eventic: str
) -> None:
    with pytest.raises(Invalid, match="must name each column once"):
        load_batch(free, "headless", csv_rows(write(tmp_path, text)))
    assert stored(eventic) == (0, 0)


def test_a_csv_file_that_cannot_be_read_stores_nothing(tmp_path: Path, free: Automation, eventic: str) -> None:
    with pytest.raises(FileNotFoundError):
        load_batch(free, "lost", csv_rows(tmp_path / "none.csv"))
    with pytest.raises(csv.Error, match="unexpected end of data"):
        load_batch(free, "open quote", csv_rows(write(tmp_path, 'a,b\n1,2\n"3,4\n5,6\n')))
    with pytest.raises(UnicodeDecodeError):
        load_batch(free, "other encoding", csv_rows(write(tmp_path, "a\nZoë\n", "latin-1")))
    assert stored(eventic) == (0, 0)


# -- files of JSON


def test_a_file_of_json_gives_a_value_for_each_line_and_a_bad_row_for_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"a": 1}\n\n  \n[2]\n{"a": NaN}\n{oops\n"Zoë"', encoding="utf-8")
    one, two, nan, oops, text = json_rows(path)
    assert (one, two, text) == ({"a": 1}, [2], "Zoë")
    assert [(type(bad), bad.problem.split(":")[0]) for bad in (nan, oops)] == [
        (RaggedRow, "line 5 is no JSON"),
        (RaggedRow, "line 6 is no JSON"),
    ]
    assert next(json_rows(str(path))) == {"a": 1}


# -- progress


def test_progress_is_lines_where_stderr_is_no_terminal(
    automation: Automation, capsys: pytest.CaptureFixture[str]
) -> None:
    load_batch(automation, "list", list(good(5000)), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"loading list: {done:,} of 5,000" for done in range(1000, 5001, 1000)]
    load_batch(automation, "generator", good(1500), progress=True)
    assert capsys.readouterr().err.splitlines() == ["loading generator: 1,500"]
    load_batch(automation, "quiet", good(1500))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_tells_what_failed_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1000, "run") as bar:
        bar.update(1)
        bar.update(100, failed=2, retrying=1, rate=50.0, eta_seconds=18.2)
        bar.update(150)
        bar.update(1000, eta_seconds=3725.0)
    assert capsys.readouterr().err.splitlines() == [
        "run: 100 of 1,000 (2 failed, 1 retrying, 50/s, 0:18 left)",
        "run: 1,000 of 1,000 (1:02:05 left)",
    ]
    with progress_bar(None, "silent") as bar:
        bar.update(5)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(10, "run [x]") as bar:
        bar.update(10, failed=1)
    shown = terminal.getvalue()
    assert "run [x]" in shown
    assert "10 of 10" in shown
    assert "1 failed" in shown
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(10, "nowhere") as bar:
        bar.update(10)


def test_ids_of_items_are_new(automation: Automation) -> None:
    loaded = load_batch(automation, "ids", [{"n": 1, "id": str(uuid4())}, {"n": 1}])
    assert len({item.id for item in Item.where(batch_id=loaded.batch.id)}) == 2
