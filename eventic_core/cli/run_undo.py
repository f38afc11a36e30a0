"""`eventic run undo`: what a run of an automation did to records taken back.

Owns the options and what is printed; what is written is `eventic_core.automation`'s.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from eventic_core.automation.undo import undo
from eventic_core.cli.application import connected
from eventic_core.cli.lookup import find_writer
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_json, print_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.automation.corrections import RecordConflict


@click.command("undo", short_help="Restore the records that a run of an automation wrote.")
@click.argument("name", metavar="RUN")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--force", is_flag=True, help="Restore also what others have changed since.")
@click.option("--reason", metavar="TEXT", help="Noted with each version.  [default: undo of run RUN]")
@json_option
@app_option
@actor_option
@database_option
def undo_command(
    *,
    name: str,
    reason: str | None,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Give the records that a run wrote the values they had before, as new versions; print how many.

    What others have changed since is left alone and listed, and the command then ends with 1. This process needs the
    classes of the records: --app. If it is interrupted, call it again. RUN may be RUN:undo-1 or RUN:replay-1: an undo,
    or a published replay, is undone in turn.
    """
    with connected(database_url, app, actor=actor):
        report = undo(find_writer(name), dry_run=dry_run, force=force, reason=reason)
    if as_json:
        print_json([asdict(report)])
    else:
        print_text([str(report)])
        print_conflicts(report.conflicts, report.conflict_count)
    if report.conflict_count and not dry_run:
        click.get_current_context().exit(1)


def print_conflicts(conflicts: Sequence[RecordConflict], count: int) -> None:
    """Print the records that were left alone, of which the first are known."""
    print_text(f"! {conflict.line()}" for conflict in conflicts)
    if count > len(conflicts):
        click.echo(f"There are {count - len(conflicts):,} more conflicts.", err=True)
