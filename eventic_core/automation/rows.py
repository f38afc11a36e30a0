"""Rows: what a batch is loaded from, read one by one from a file, a query or any other iterable.

Owns reading and numbering, and how a record becomes a row. Knows nothing of batches.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from pydantic_core import from_json

from eventic_core.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from pathlib import Path

    from eventic_core.records import Record

_PROGRESS_ROWS: Final = 1000
_NO_ROW: Final = object()


class RaggedRow(dict[Any, Any]):
    """A line of a CSV file with more or fewer fields than the header, or one that is no JSON; always a bad row.

    Holds what can be told: fields beyond the header are a list under the key `None`, missing ones are absent.
    """

    def __init__(self, values: dict[Any, Any], problem: str) -> None:
        super().__init__(values)
        self.problem = problem


def csv_rows(path: str | Path, *, delimiter: str = ",") -> Iterator[dict[str, Any]]:
    """Read a CSV file in UTF-8, with or without a byte order mark, as a dict of texts for each line after the header.

    Empty lines are left out. A line with more or fewer fields than the header is a `RaggedRow`.

    Raises:
        Invalid: When the first row is asked for: there is no header, or a name in it is empty or there twice.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:  # noqa: PTH123 - takes a text too
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(lines, [])
        if not header or "" in header or len(set(header)) != len(header):
            message = f"{path}: the first line must name each column once; it is {header!r:.200}."
            raise Invalid(message)
        for line in lines:
            if len(line) == len(header):
                yield dict(zip(header, line, strict=True))
            elif line:
                values: dict[Any, Any] = dict(zip(header, line, strict=False))
                if len(line) > len(header):
                    values[None] = line[len(header) :]
                problem = f"line {lines.line_num} has {len(line)} fields, the header has {len(header)}"
                yield RaggedRow(values, problem)


def json_rows(path: str | Path) -> Iterator[Any]:
    """Read a file of JSON values in UTF-8, one in each line, with or without a byte order mark.

    Empty lines are left out. A line that is no JSON is a `RaggedRow`.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - takes a text too
        for number, line in enumerate(file, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            try:
                yield from_json(text, allow_inf_nan=False)
            except ValueError as error:
                yield RaggedRow({}, f"line {number} is no JSON: {error}")


def fields_of(record: Record) -> dict[str, Any]:
    """Give a record's values as JSON, with its id; the property bag only if there is something in it."""
    empty = set() if record.properties else {"properties"}
    values: dict[str, Any] = record.model_dump(mode="json", exclude={"version", "version_id", *empty})
    return values


def refuse_no_rows(rows: object) -> None:
    """Refuse what is no iterable of rows, and what is one by accident.

    Raises:
        Invalid: It is a text, a mapping or a model, or cannot be iterated over.
    """
    if isinstance(rows, (str, bytes, Mapping, BaseModel)) or not isinstance(rows, Iterable):
        kind = type(rows).__name__
        remedy = (
            "read an async iterable into a list first"
            if isinstance(rows, AsyncIterable)
            else "csv_rows(path) and json_rows(path) read a file"
        )
        message = f"load_batch(rows=...) takes an iterable of rows, not {kind}; {remedy}. Nothing was stored."
        raise Invalid(message)


def numbered(rows: Iterable[Any], outside: Context, report: Callable[[int], object]) -> Iterator[tuple[int, Any]]:
    """Read the rows as if the caller did: what a generator reads and writes is none of the load's transaction."""
    iterator = outside.run(iter, rows)
    number = 0
    while (row := outside.run(next, iterator, _NO_ROW)) is not _NO_ROW:
        number += 1
        yield number, row
        if number % _PROGRESS_ROWS == 0:
            report(number)
    if number % _PROGRESS_ROWS:
        report(number)
