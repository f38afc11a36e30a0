"""`eventic erase`: values of one record made unreadable, and what runs keep of them.

Owns the options and what is printed; what the command does is in `operations.erasure`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.operations.erasure import erase as erase_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.operations.erasure import Erased


def _placeholders(_ctx: click.Context, _option: click.Parameter, given: Sequence[str]) -> dict[str, Any]:
    found = {}
    for one in given:
        name, equals, text = one.partition("=")
        try:
            found[name] = json.loads(text)
        except ValueError:
            message = f"What stands in place of {name!r} is no JSON. Write FIELD=JSON, as name='\"nobody\"'."
            raise click.BadParameter(message) from None
        if not (name and equals):
            message = "Write FIELD=JSON."
            raise click.BadParameter(message)
    return found


@click.command()
@click.argument("record_id", metavar="ID", type=click.UUID)
@click.option("--field", "fields", metavar="NAME", multiple=True, help="A field, or a path as a.b; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All fields but ids and the state.")
@click.option(
    "--value",
    "values",
    metavar="TEXT",
    multiple=True,
    help="A text that runs may hold without naming the record; `-` reads lines from stdin. May be repeated.",
)
@click.option(
    "--placeholder",
    "placeholders",
    metavar="FIELD=JSON",
    multiple=True,
    callback=_placeholders,
    help="What is to stand in place of a field, where the class accepts nothing simple.",
)
@click.option("--leave-unfinished", is_flag=True, help="Leave unfinished runs what they hold, and name them.")
@click.option("--dry-run", is_flag=True, help="Only say what would be overwritten.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--request-key", metavar="KEY", help="Asking twice with one key does it once.")
@click.option("--reason", metavar="TEXT", help="Why, noted with the act.")
@json_option
@actor_option
@app_option
@database_option
def erase(
    record_id: UUID,
    fields: Sequence[str],
    values: Sequence[str],
    *,
    database_url: str | None,
    app: str | None,
    actor: str | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Make values of one record unreadable in all its versions, and in what ended runs kept of them.

    Not reached: backups, the write-ahead log, pages that vacuum has not cleaned yet, logs, and other records.
    """
    if bool(fields) == everything:
        message = "Name fields with --field, or give --all: one of the two."
        raise click.UsageError(message)
    texts = [text for value in values for text in (_lines() if value == "-" else [value])]
    chosen |= {"fields": None if everything else fields, "values": texts}
    with connected(database_url, app, actor=actor):
        if not (dry_run or yes):
            _tell(erase_record(record_id, **chosen, dry_run=True))
            click.confirm("Erase them for good?", abort=True, err=True)
        done = erase_record(record_id, **chosen, dry_run=dry_run)
    _print(done, "would be overwritten" if dry_run else "overwritten", as_json=as_json)


def _lines() -> list[str]:
    return [line for line in sys.stdin.read().splitlines() if line.strip()]


def _tell(found: Erased) -> None:
    """Say what is about to be done."""
    counts = ", ".join(f"{rows} of {name}" for name, rows in _counts(found))
    click.echo(f"{', '.join(found.fields)} of {found.class_type} {found.record_id}: {counts}.", err=True)


def _print(done: Erased, what: str, *, as_json: bool) -> None:
    if as_json:
        fields = {"fields": done.fields, "versions": done.versions, "rows": done.rows, "left": done.left}
        print_json([{"record": done.record_id, "class": done.class_type, **fields}])
        return
    print_columns((what, "rows"), _counts(done))
    for run_id in done.left:
        click.echo(f"Left: unfinished run {run_id} holds data still. Erase again when it has ended.", err=True)


def _counts(done: Erased) -> list[tuple[str, int]]:
    return [("versions", done.versions), *sorted(done.rows.items())]
