"""`eventic run`: runs listed, looked into, cancelled, resumed and forked.

Owns the options and the two forms of output, columns and JSON lines; what the commands do is in `runtime.runs`.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from pydantic_core import to_json

from eventic_core.app import Eventic
from eventic_core.errors import Conflict, NotFound, RemoteError
from eventic_core.runtime import runs
from eventic_core.settings import URL_PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from eventic_core.runtime.runs import Run, Step

LISTED = ("id", "status", "name", "queue", "created_at", "started_at", "completed_at", "waiting_for")
PAYLOADS = ("arguments", "result", "error")

database_option = click.option(
    "--database-url",
    metavar="URL",
    help=f"The database; else the first of {', '.join(URL_PLACES[1:])}, else the embedded Postgres.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
_id = click.argument("run_id", metavar="ID")
_ids = click.argument("run_ids", metavar="ID...", nargs=-1, required=True)


@click.group()
def run() -> None:
    """List runs, look into one, cancel, resume and fork them.

    A run is a workflow of DBOS, and its id is the workflow's.
    """


@run.command("list")
@click.option("--status", type=click.Choice(runs.STATUSES, case_sensitive=False), help="Only runs in this state.")
@click.option("--queue", metavar="QUEUE", help="Only runs of this queue.")
@click.option("--name", metavar="NAME", help="Only runs of this workflow.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--before", metavar="ID", help="Only runs older than this one: the next page.")
@json_option
@database_option
def list_command(database_url: str | None, limit: int, *, as_json: bool, **given: str | None) -> None:
    """List runs, newest first."""
    with connected(database_url):
        found = runs.list_runs(limit=limit + 1, **given)
    shown = found[:limit]
    if not shown:
        click.echo("No runs.", err=True)
    elif as_json:
        print_json({name: getattr(one, name) for name in _fields(one) if name not in PAYLOADS} for one in shown)
    else:
        print_columns(LISTED, ([getattr(one, name) for name in LISTED] for one in shown))
    if len(found) > limit:
        click.echo(f"There are more: --before {shown[-1].id}", err=True)


@run.command("get", short_help="Print everything about a run.")
@_id
@json_option
@database_option
def get_command(run_id: str, database_url: str | None, *, as_json: bool) -> None:
    """Print everything about a run: where it is, its arguments, its result or error."""
    with connected(database_url):
        found = runs.get_run(run_id)
        values = {name: getattr(found, name) for name in _fields(found)} | {"error": _error(found.error)}
        if as_json:
            print_json([values])
            return
        error = found.error and "{type}: {message}".format(**values["error"])
        texts = {name: _text(values[name]) for name in ("arguments", "result")}
    print_columns((), (values | texts | {"error": error}).items())


@run.command("steps", short_help="List a run's steps and the versions they wrote.")
@_id
@json_option
@database_option
def steps_command(run_id: str, database_url: str | None, *, as_json: bool) -> None:
    """List the steps of a run in order, each with the record versions it wrote, one per line.

    Step 0 is what the run wrote outside any step.
    """
    with connected(database_url):
        found = runs.steps(run_id)
        if not found:
            click.echo(f"Run {run_id} has recorded no step and written no record.", err=True)
        elif as_json:
            print_json(map(_step, found))
        else:
            header = ("number", "name", "seconds", "class", "id", "version", "child_id", "error")
            print_columns(header, (line for step in found for line in _lines(step)))


@run.command("cancel", short_help="Cancel runs that are not finished.")
@_ids
@database_option
def cancel_command(run_ids: tuple[str, ...], database_url: str | None) -> None:
    """Cancel runs that are not finished, and print the status of each.

    A run at work stops before its next step. What it has done stays; the runs it started go on.
    """
    _steer(runs.cancel, run_ids, database_url)


@run.command("resume", short_help="Put cancelled runs back into their queues.")
@_ids
@database_option
def resume_command(run_ids: tuple[str, ...], database_url: str | None) -> None:
    """Put cancelled runs back into their queues, and print the status of each.

    They go on after the last step they recorded. A delayed run becomes due at once.
    """
    _steer(runs.resume, run_ids, database_url)


@run.command("fork", short_help="Repeat a run under a new id.")
@_id
@click.option("--step", type=click.IntRange(min=1), default=1, show_default=True, help="The first step to do again.")
@click.option("--app-version", metavar="VERSION", help="Of the application that is to run it.  [default: the newest]")
@database_option
def fork_command(run_id: str, step: int, app_version: str | None, database_url: str | None) -> None:
    """Repeat a run under a new id, which is printed; what the steps before STEP recorded is kept."""
    with connected(database_url):
        click.echo(runs.fork(run_id, step=step, app_version=app_version))


@contextmanager
def connected(database_url: str | None) -> Iterator[None]:
    """Connect for one command, which looks at the tables and leaves them at the revision they are at."""
    Eventic.init(name="eventic-cli", database_url=database_url, auto_migrate=False)
    try:
        yield
    finally:
        Eventic.shutdown()


def _steer(steer: Callable[[str], str], run_ids: Sequence[str], database_url: str | None) -> None:
    """Steer every run; those that refuse are reported, and the last of them ends the command."""
    refused: Conflict | NotFound | None = None
    with connected(database_url):
        for run_id in run_ids:
            try:
                print_columns((), [(run_id, steer(run_id))])
            except (Conflict, NotFound) as error:
                if refused is not None:
                    click.echo(f"Error: {refused} [{refused.code}]", err=True)
                refused = error
    if refused is not None:
        raise refused


def _fields(found: Run) -> tuple[str, ...]:
    return tuple(type(found).__dataclass_fields__)


def _text(value: Any) -> str | None:
    """Write a value in a line; a text as it is, for what could not be decoded is JSON already."""
    return value if value is None or isinstance(value, str) else _json(value)


def _error(error: Exception | None) -> dict[str, str] | None:
    if error is None:
        return None
    kind = type(error)
    name = error.type_name if isinstance(error, RemoteError) else f"{kind.__module__}:{kind.__qualname__}"
    return {"type": name, "message": str(error)}


def _step(step: Step) -> dict[str, Any]:
    versions = [{"class_type": v.class_type, "id": v.id, "version": v.version} for v in step.versions]
    return {
        "number": step.number,
        "name": step.name,
        "started_at": step.started_at,
        "completed_at": step.completed_at,
        "output": step.output,
        "error": _error(step.error),
        "child_id": step.child_id,
        "versions": versions,
    }


def _lines(step: Step) -> Iterator[tuple[Any, ...]]:
    """Give a line for each version a step wrote, at least one; each begins with the step's number and name."""
    took = step.completed_at - step.started_at if step.completed_at and step.started_at else None
    error = _error(step.error)
    text = error and "{type}: {message}".format(**error)
    for version in step.versions or (None,):
        wrote = (version.class_type, version.id, version.version) if version else (None, None, None)
        yield step.number, step.name, took, *wrote, step.child_id, text


# The two forms of output


def print_columns(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in columns two spaces apart; nothing is cut, whatever the width of the terminal."""
    lines = [[_cell(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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


def print_json(values: Iterable[dict[str, Any]]) -> None:
    """Print each as one line of JSON."""
    for value in values:
        click.echo(_json(value))


def _json(value: Any) -> str:
    """Write a value as JSON; what has no form in JSON, as Python shows it."""
    return to_json(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64").decode()
