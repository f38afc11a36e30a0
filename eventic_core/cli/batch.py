"""`eventic batch`: batches of items loaded from files.

Owns the options and what is printed; reading and loading is `eventic_core.automation`'s.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from eventic_core.automation.declared import find
from eventic_core.automation.loading import csv_rows, json_rows, load_batch
from eventic_core.cli.application import connected
from eventic_core.cli.lookup import find_stored_automation
from eventic_core.cli.options import actor_option, app_option, database_option
from eventic_core.errors import Invalid, NotRegistered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eventic_core.automation.loading import LoadedBatch


READERS: Final[dict[str, Callable[[Path], Iterator[Any]]]] = {".csv": csv_rows, ".jsonl": json_rows}


class _Rows:
    """The rows of a file that can be read twice: first counted, so that there is something to show progress of."""

    def __init__(self, read: Callable[[Path], Iterator[Any]], path: Path) -> None:
        self._read = read
        self._path = path

    def __iter__(self) -> Iterator[Any]:
        return self._read(self._path)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@click.group()
def batch() -> None:
    """Load batches of items, which runs of automations are started over."""


@batch.command("load", short_help="Load a batch of an automation from a file.")
@click.argument("automation")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--set-aside", is_flag=True, help="Leave bad rows out and list them, instead of loading nothing.")
@app_option
@actor_option
@database_option
def load_command(
    *,
    automation: str,
    name: str,
    file: Path,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    set_aside: bool,
) -> None:
    """Load batch NAME of AUTOMATION from FILE, an item for each row, all or none; print the batch's id.

    FILE is .csv, in UTF-8 and with a header, or .jsonl, a JSON value in each line. Rows are judged by the schema of the
    automation; bad ones are listed with their numbers on stderr, the first row being 1. A row of a .csv file is texts:
    an automation whose items are a model, named with --app, makes numbers of them.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        message = f"{file} is no {' or '.join(READERS)}: the end of its name says what is in it."
        raise click.UsageError(message)
    bad_rows = "set aside" if set_aside else "refuse"
    rows = _Rows(reader, file) if file.is_file() else reader(file)
    with connected(database_url, app, actor=actor):
        try:
            loaded = _load(automation, name, rows, bad_rows=bad_rows, progress=True)
        except (csv.Error, UnicodeError) as error:
            message = f"{file} cannot be read as {file.suffix} in UTF-8: {error}. Nothing was stored."
            raise Invalid(message) from error
    _report(loaded)


def _load(automation: str, name: str, rows: Iterable[Any], **options: Any) -> LoadedBatch:
    """Load as the declaration says, if this process has it: its model makes values of texts."""
    try:
        declared = find(automation)
    except NotRegistered:
        return load_batch(find_stored_automation(automation), name, rows, **options)
    return declared.load(name, rows, **options)


def _report(loaded: LoadedBatch) -> None:
    click.echo(loaded.batch.id)
    click.echo(f"{loaded.count:,} items loaded, {loaded.bad_count:,} bad rows set aside.", err=True)
    for bad in loaded.bad_rows:
        reasons = "; ".join(f"{error.path}: {error.message}" if error.path else error.message for error in bad.errors)
        click.echo(f"row {bad.number}: {reasons}", err=True)
    if loaded.bad_count > len(loaded.bad_rows):
        click.echo(f"There are {loaded.bad_count - len(loaded.bad_rows):,} more.", err=True)
