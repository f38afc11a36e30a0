"""`eventic run pause`, `resume`, `cancel` and `redrive`: what people do to a run that goes on, or has ended.

Owns the options and what is printed. A run of an automation is steered by its own methods, any other by
`operations.runs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli.application import connected
from eventic_core.cli.lookup import automation_of, find_automation_run, find_declared_automation, find_run
from eventic_core.cli.options import actor_option, app_option, database_option, numbers_option, reason_option
from eventic_core.cli.output import print_columns, print_each
from eventic_core.cli.run_start import watch, watch_option
from eventic_core.errors import RunNotFound
from eventic_core.operations.runs import cancel_run, resume_run

if TYPE_CHECKING:
    from eventic_core.automation.run import Run

_runs = click.argument("names", metavar="RUN...", nargs=-1, required=True)


@click.command("pause", short_help="Begin no more items of runs of automations.")
@_runs
@actor_option
@database_option
def pause_command(names: tuple[str, ...], actor: str | None, database_url: str | None) -> None:
    """Begin no more items of runs of automations until `eventic run resume`; those that are being done are finished."""

    def pause(name: str) -> str:
        run = find_run(name)
        run.pause()
        return _state(run)

    with connected(database_url, actor=actor):
        print_each(names, pause)


@click.command("resume", short_help="Go on with runs that were paused or cancelled.")
@_runs
@reason_option
@actor_option
@database_option
def resume_command(names: tuple[str, ...], reason: str | None, actor: str | None, database_url: str | None) -> None:
    """Go on with runs, and print the status of each: a paused one of an automation, a cancelled one of a workflow.

    The latter are put back into their queues and go on after the last step they recorded; a delayed one becomes due at
    once. The items of a cancelled run of an automation stay cancelled: start another run.
    """

    def resume(name: str) -> str:
        run = find_automation_run(name)
        if run is None:
            return resume_run(name, reason=reason)
        run.resume()
        return _state(run)

    with connected(database_url, actor=actor):
        print_each(names, resume)


@click.command("cancel", short_help="Cancel runs that are not finished.")
@_runs
@click.option("--reason", metavar="TEXT", help="Why; noted with a run of an automation, which needs it.")
@actor_option
@database_option
def cancel_command(names: tuple[str, ...], reason: str | None, actor: str | None, database_url: str | None) -> None:
    """Cancel runs that are not finished, and print the status of each.

    A workflow at work stops before its next step. What it has done stays; the runs it started go on. A run of an
    automation ends with all its items that are not finished.
    """
    with connected(database_url, actor=actor):
        found = {name: _known(name) for name in names}
        if reason is None and (of_automations := [name for name, run in found.items() if run is not None]):
            message = f"Say why with --reason: {', '.join(of_automations)} is of an automation, which notes it."
            raise click.UsageError(message)

        def cancel(name: str) -> str:
            run = found[name]
            if run is None:
                return cancel_run(name, reason=reason)
            run.cancel(reason or "")
            return _state(run)

        print_each(names, cancel)


@click.command("redrive", short_help="Do the failed items of a run of an automation again.")
@click.argument("name", metavar="RUN")
@click.option("--error-type", metavar="CLASS", help="Only items whose error was of this class.")
@click.option("--message", metavar="TEXT", help="Only items whose error message holds this text.")
@numbers_option
@click.option("--not-begun", is_flag=True, help="No failed items, only those that were not begun.")
@watch_option
@app_option
@actor_option
@database_option
def redrive_command(
    *,
    name: str,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    watched: bool,
    not_begun: bool,
    **filters: Any,
) -> None:
    """Do failed items again, and those that were not begun, as a new attempt of the same run; print its status.

    This process needs the automation's declaration: --app. Filters may be combined.
    """
    chosen = {key: value for key, value in filters.items() if value is not None}
    if not_begun and chosen:
        message = "--not-begun does no failed item again, so it goes with no filter."
        raise click.UsageError(message)
    with connected(database_url, app, actor=actor):
        run = find_run(name)
        find_declared_automation(automation_of(run))
        count = run.redrive(failed=not not_begun, **chosen)
        print_columns((), [(run.id, _state(run))])
        click.echo(f"{count:,} failed item{'s' if count != 1 else ''} will be done again.", err=True)
        if watched:
            watch(run)


def _state(run: Run) -> str:
    return "PAUSED" if run.paused else str(run.status)


def _known(name: str) -> Run | None:
    """Find a run of an automation; one of which nothing is known is refused later, when its turn comes."""
    try:
        return find_automation_run(name)
    except RunNotFound:
        return None
