"""`eventic run replay`: the items of a run of an automation done again on the data as it was, and published if wanted.

Owns the options and what is printed; the replay is `eventic_core.automation`'s.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli.application import connected
from eventic_core.cli.lookup import automation_of, find_declared_automation, find_run
from eventic_core.cli.options import actor_option, app_option, database_option, json_option, numbers_option
from eventic_core.cli.output import print_json, print_text
from eventic_core.cli.run_results import item_values

if TYPE_CHECKING:
    from eventic_core.automation.replay import ReplayReport


def _moment(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """Make a moment of `2026-11-21T15:00:00+01:00`."""
    try:
        found = None if value is None else datetime.fromisoformat(value)
    except ValueError:
        found = None
    if value is not None and (found is None or found.tzinfo is None):
        message = f"{value!r} is no moment with a time zone. Write 2026-11-21T15:00:00+01:00, or Z for UTC."
        raise click.BadParameter(message)
    return found


@click.command("replay", short_help="Do the items of a run of an automation again on the data as it was.")
@click.argument("name", metavar="RUN")
@click.option(
    "--as-of", callback=_moment, metavar="MOMENT", help="Read all as of then.  [default: when each item began]"
)
@numbers_option
@click.option("--publish", is_flag=True, help="Write what differs, as new versions.")
@click.option("--force", is_flag=True, help="Publish also what others have changed since.")
@click.option("--reason", metavar="TEXT", help="Noted with what is published.  [default: replay of run RUN]")
@json_option
@app_option
@actor_option
@database_option
def replay_command(
    *,
    name: str,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    publish: bool,
    force: bool,
    reason: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Do the items of a run again in this process, on the data as it was, and print what comes out differently.

    Steps give what they gave then and nothing is written, unless it is to be published: then each record becomes what
    it had been if the run had done this, and the command ends with 1 if something was left alone. This process needs
    the automation's declaration: --app.
    """
    if not publish and (force or reason is not None):
        message = "--force and --reason are for what is written: say --publish too."
        raise click.UsageError(message)
    with connected(database_url, app, actor=actor):
        run = find_run(name)
        find_declared_automation(automation_of(run))
        report = run.replay(publish=publish, force=force, reason=reason, **chosen)
        if as_json:
            print_json(map(item_values, report))
            print_json([_values(report)])
        else:
            print_text(report.lines())
    written = report.published
    if written is not None and written.conflict_count > len(written.conflicts):
        click.echo(f"There are {written.conflict_count - len(written.conflicts):,} more conflicts.", err=True)
    if written is not None and (written.conflict_count or report.diverged):
        click.get_current_context().exit(1)


def _values(report: ReplayReport) -> dict[str, Any]:
    """Give the numbers by names, in the last line."""
    names = ("run_id", "as_of", "items", "same", "different", "diverged", "dropped_work")
    published = report.published and asdict(report.published)
    return {"kind": "replay", **{name: getattr(report, name) for name in names}, "published": published}
