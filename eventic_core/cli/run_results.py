"""`eventic run report`, `results`, `changes` and `diff`: what came of a run of an automation, and what it did.

Owns the options and what is printed; the answers are `Run`'s. Whatever is long is printed as it is read.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from eventic_core.automation.report import ResultFormat
from eventic_core.automation.run_changes import changes
from eventic_core.automation.run_diff import diff
from eventic_core.automation.status import ExecutionStatus
from eventic_core.cli.application import connected
from eventic_core.cli.lookup import find_run, find_writer
from eventic_core.cli.options import app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json, print_text
from eventic_core.errors import NotRegistered
from eventic_core.records.record_class import find_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.automation.report import Report
    from eventic_core.automation.run import Run
    from eventic_core.automation.run_changes import RunChange
    from eventic_core.automation.run_diff import ItemDiff

ERRORS: Final = ("count", "error_type", "sample_numbers", "message")
CHANGES: Final = ("item", "attempt", "kind", "class", "id", "version", "recorded_at", "actor", "fields")
_name = click.argument("name", metavar="RUN")


@click.command("report", short_help="Print what came of the items of a run of an automation.")
@_name
@json_option
@database_option
def report_command(name: str, database_url: str | None, *, as_json: bool) -> None:
    """Print what came of a run's items so far: how many in each status, attempts, time, and errors by message."""
    with connected(database_url):
        run = find_run(name)
        report = run.report()
    if as_json:
        print_json([{"status": run.status, **asdict(report)}])
        return
    _print_report(run, report)


def _print_report(run: Run, report: Report) -> None:
    attempts = ", ".join(f"{count:,} took {number}" for number, count in report.attempts.items())
    rows = [
        ("run", run.id),
        ("status", run.status),
        ("correlation_id", run.correlation_id),
        ("started_at", report.started_at),
        ("finished_at", report.finished_at),
        ("seconds", report.duration_seconds),
        ("items_per_second", report.throughput),
        ("items", f"{report.total:,}"),
        *((f"  {status}", f"{count:,}") for status, count in report.statuses.items() if count),
        ("attempts", attempts or None),
    ]
    print_columns((), rows)
    if report.errors:
        click.echo()
        shown = ([_listed(getattr(group, name)) for name in ERRORS] for group in report.errors)
        print_columns(ERRORS, shown)
    if report.error_groups > len(report.errors):
        click.echo(f"There are {report.error_groups - len(report.errors):,} more groups of errors.", err=True)


def _listed(value: Any) -> Any:
    return ",".join(map(str, value)) or None if isinstance(value, tuple) else value


@click.command("results", short_help="Print the results of the items of a run of an automation.")
@_name
@click.option(
    "--format", "form", type=click.Choice(get_args(ResultFormat)), default="jsonl", show_default=True, help="The form."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice([str(status) for status in ExecutionStatus], case_sensitive=False),
    multiple=True,
    default=("COMPLETED",),
    show_default=True,
    help="Items in this status; may be repeated.",
)
@database_option
def results_command(name: str, form: ResultFormat, statuses: Sequence[str], database_url: str | None) -> None:
    """Print a line for each item in the order of their numbers: number, item, status, attempts, result and error."""
    with connected(database_url):
        for line in find_run(name).results(statuses=statuses, format=form):
            click.echo(line, nl=False)


@click.command("changes", short_help="List the record versions that a run of an automation wrote.")
@_name
@click.option("--class", "class_type", metavar="NAME", help="Only records of this class and its subclasses; see --app.")
@click.option("--item", type=click.IntRange(min=0), metavar="N", help="Only by the item with this number.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only by this attempt of the run.")
@click.option("--bookkeeping", is_flag=True, help="Also what the run keeps of itself and its items.")
@json_option
@app_option
@database_option
def changes_command(
    *,
    name: str,
    class_type: str | None,
    item: int | None,
    attempt: int | None,
    app: str | None,
    database_url: str | None,
    bookkeeping: bool,
    as_json: bool,
) -> None:
    """List every record version that a run wrote, in the order of writing, with the fields that it changed.

    RUN may also be RUN:undo-1 or RUN:replay-1: an undo of it, or a published replay.
    """
    with connected(database_url, app):
        if class_type is not None and find_class(class_type) is None:
            message = f"No record class {class_type!r} is defined in this process. Name its module with --app MODULE."
            raise NotRegistered(message)
        found = changes(
            find_writer(name),
            record_class=None if class_type is None else find_class(class_type),
            item_number=item,
            attempt=attempt,
            bookkeeping=bookkeeping,
        )
        rows = map(_change, found)
        if as_json:
            print_json(rows)
        else:
            print_columns(CHANGES, ([_fields(value) for value in row.values()] for row in rows))


def _change(change: RunChange) -> dict[str, Any]:
    values = (
        change.item_number,
        change.attempt,
        change.kind,
        change.class_type,
        change.record_id,
        change.version,
        change.recorded_at,
        change.actor,
        {part.field: part.after for part in change.diff.changes},
    )
    return dict(zip(CHANGES, values, strict=True))


def _fields(value: Any) -> Any:
    return ", ".join(value) or None if isinstance(value, dict) else value


@click.command("diff", short_help="Compare two runs of automations, item by item.")
@_name
@click.argument("other")
@click.option(
    "--key", metavar="FIELD", help="Items are the same that have the same value in this field of the payload."
)
@json_option
@app_option
@database_option
def diff_command(
    name: str, other: str, key: str | None, app: str | None, database_url: str | None, *, as_json: bool
) -> None:
    """Compare RUN with run OTHER, item by item: status, result, error, attempts and what each did to records.

    Only items that differ are printed. Without --key items are the same that are one item, where both runs ran the
    same batches, else those that have the same place in them.
    """
    with connected(database_url, app):
        found = diff(find_run(name), find_run(other), key=key)
        if as_json:
            print_json(map(item_values, found))
        else:
            print_text(found.lines())


def item_values(item: ItemDiff) -> dict[str, Any]:
    """Give what differs about an item by names."""
    return {
        "kind": item.kind,
        "key": item.key,
        "numbers": item.numbers,
        "item_ids": item.item_ids,
        "fields": {change.field: [change.before, change.after] for change in item.fields},
        "seconds": item.seconds,
        "records": [
            {
                "class": record.class_type,
                "id": record.record_id,
                "kinds": [None if effect is None else effect.kind for effect in (record.a, record.b)],
                "fields": {change.field: [change.before, change.after] for change in record.changes},
            }
            for record in item.records
        ],
    }
