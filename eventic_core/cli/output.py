"""What commands print on stdout: columns for people, JSON lines for programs, and what became of each of several."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from pydantic_core import to_json

from eventic_core.errors import Conflict, EventicError, NotFound, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

_ROWS_AT_ONCE: Final = 1000
"""Rows whose columns are as wide as each other: more are printed as they come."""


def print_columns(header: Sequence[str], rows: Iterable[Sequence[Any]], *, indent: int = 0) -> None:
    """Print rows in columns two spaces apart; nothing is cut, whatever the width of the terminal."""
    waiting = chain([header] if header else [], rows)
    widths: list[int] = []
    while lines := [[_cell(cell) for cell in row] for row in islice(waiting, _ROWS_AT_ONCE)]:
        found = [max(map(len, column)) for column in zip(*lines, strict=True)]
        widths = [max(pair) for pair in zip(widths or found, found, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            click.echo(" " * indent + "  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    """Write a value in one line; what a terminal would obey is escaped."""
    match value:
        case None:
            return "-"
        case datetime():
            return value.isoformat(timespec="milliseconds")
        case timedelta() | float():
            return f"{value.total_seconds() if isinstance(value, timedelta) else value:.3f}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))


def print_text(lines: Iterable[str]) -> None:
    """Print lines; what a terminal would obey is escaped."""
    for line in lines:
        click.echo(_cell(line))


def print_json(values: Iterable[dict[str, Any]]) -> None:
    """Print each as one line of JSON."""
    for value in values:
        click.echo(to_json_text(value))


def to_json_text(value: Any) -> str:
    """Write a value as JSON; what has no form in JSON, as Python shows it."""
    return to_json(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64").decode()


def error_values(error: Exception) -> dict[str, str]:
    """Give an error by names, its class as `module:name`."""
    kind = type(error)
    name = error.type_name if isinstance(error, RemoteError) else f"{kind.__module__}:{kind.__qualname__}"
    return {"type": name, "message": str(error)}


def error_text(error: Exception) -> str:
    """Write an error in a line."""
    return "{type}: {message}".format(**error_values(error))


def print_each(ids: Iterable[T], act: Callable[[T], str]) -> None:
    """Do something to each by itself and print what it is then; one that refuses is reported, and the next is done.

    Raises:
        EventicError: The last one that refused did so.
    """
    refused: EventicError | None = None
    for one in ids:
        try:
            print_columns((), [(one, act(one))])
        except (Conflict, NotFound) as error:
            if refused is not None:
                click.echo(f"Error: {refused} [{refused.code}]", err=True)
            refused = error
    if refused is not None:
        raise refused
