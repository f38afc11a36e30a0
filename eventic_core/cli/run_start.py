"""`eventic run start` and `watch`: a run of an automation begun, and followed to its end.

Owns the options, what is printed and how watching ends; the runs are `eventic_core.automation`'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from eventic_core.automation.progress import read
from eventic_core.automation.status import ExecutionStatus
from eventic_core.cli.application import connected
from eventic_core.cli.lookup import find_batches, find_declared_automation, find_run
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json

if TYPE_CHECKING:
    from eventic_core.automation.run import Run

watch_option = click.option("--watch", "watched", is_flag=True, help="Watch it to its end, as `eventic run watch`.")


@click.command("start", short_help="Start a run of an automation over batches.")
@click.argument("automation")
@click.argument("batches", metavar="BATCH...", nargs=-1, required=True)
@click.option("--correlation-id", metavar="ID", help="Stamped on everything the run writes; names it from then on.")
@click.option("--tolerated-failures", metavar="N|P%", help="How many items may fail.  [default: as declared]")
@watch_option
@app_option
@actor_option
@database_option
def start_command(
    *,
    automation: str,
    batches: tuple[str, ...],
    correlation_id: str | None,
    tolerated_failures: str | None,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    watched: bool,
) -> None:
    """Start a run of AUTOMATION over batches, each by its name or id, and print the run's id.

    Workers that declare the automation do the items; this process only needs its declaration: --app.
    """
    tolerated = int(tolerated_failures) if tolerated_failures and tolerated_failures.isdigit() else tolerated_failures
    with connected(database_url, app, actor=actor):
        found = find_declared_automation(automation)
        chosen = find_batches(automation, batches)
        run = found.start(chosen, correlation_id=correlation_id, tolerated_failures=tolerated)
        click.echo(run.id)
        if watched:
            watch(run)


@click.command("watch", short_help="Watch a run of an automation to its end.")
@click.argument("run_name", metavar="RUN")
@json_option
@database_option
def watch_command(run_name: str, database_url: str | None, *, as_json: bool) -> None:
    """Watch a run of an automation to its end: a bar on a terminal, lines elsewhere; then print its status.

    With --json a line each time something changes. Ends with 0 if the run completed and with 1 if not. Interrupting
    the command leaves the run alone.
    """
    with connected(database_url):
        watch(find_run(run_name), as_json=as_json)


def watch(run: Run, *, as_json: bool = False) -> None:
    """Follow a run to its end, and end the command with 1 unless it completed."""
    if as_json:
        asyncio.run(_print_changes(run))
        run.refresh()
    else:
        run.wait(progress=True)
        seen = read(run.id)
        counts = (f"{getattr(seen, name):,} {name}" for name in ("completed", "failed", "cancelled", "skipped"))
        print_columns((), [(run.id, run.status, ", ".join(counts))])
    if run.status != ExecutionStatus.COMPLETED:
        if reason := run.error_summary or run.cancellation_reason:
            click.echo(f"Run {run.id} is {run.status}: {reason}", err=True)
        click.get_current_context().exit(1)


async def _print_changes(run: Run) -> None:
    async for seen in run.watch():
        print_json([seen.values()])
