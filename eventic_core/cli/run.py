"""`eventic run`: the group of its commands, and those about any run: listed, looked into and forked.

Owns the options and what is printed; what the commands do is in `runtime.runs`. Commands about runs of automations are
in `run_start`, `run_results`, `run_steering`, `run_undo` and `run_replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli.application import connected
from eventic_core.cli.lookup import refuse_automation_run
from eventic_core.cli.options import actor_option, database_option, json_option, reason_option
from eventic_core.cli.output import error_text, error_values, print_columns, print_json, to_json_text
from eventic_core.cli.run_replay import replay_command
from eventic_core.cli.run_results import changes_command, diff_command, report_command, results_command
from eventic_core.cli.run_start import start_command, watch_command
from eventic_core.cli.run_steering import cancel_command, pause_command, redrive_command, resume_command
from eventic_core.cli.run_undo import undo_command
from eventic_core.operations.runs import fork_run
from eventic_core.runtime import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventic_core.runtime.runs import Run, Step

LISTED = ("id", "status", "name", "queue", "created_at", "started_at", "completed_at", "waiting_for")
PAYLOADS = ("arguments", "result", "error")

_id = click.argument("run_id", metavar="ID")


@click.group()
def run() -> None:
    """Start runs of automations, watch and steer them; list all runs, look into one, cancel, resume and fork them.

    A run is a workflow of DBOS, and its id is the workflow's. A run of an automation may also be named by its
    correlation id, if no other has that.
    """


for _command in (
    start_command,
    watch_command,
    report_command,
    results_command,
    changes_command,
    diff_command,
    pause_command,
    resume_command,
    cancel_command,
    redrive_command,
    undo_command,
    replay_command,
):
    run.add_command(_command)


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
        values = {name: getattr(found, name) for name in _fields(found)} | {
            "error": found.error and error_values(found.error)
        }
        if as_json:
            print_json([values])
            return
        error = found.error and error_text(found.error)
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


@run.command("fork", short_help="Repeat a run under a new id.")
@_id
@click.option("--step", type=click.IntRange(min=1), default=1, show_default=True, help="The first step to do again.")
@click.option("--app-version", metavar="VERSION", help="Of the application that is to run it.  [default: the newest]")
@reason_option
@actor_option
@database_option
def fork_command(
    run_id: str,
    *,
    step: int,
    app_version: str | None,
    reason: str | None,
    actor: str | None,
    database_url: str | None,
) -> None:
    """Repeat a run under a new id, which is printed; what the steps before STEP recorded is kept."""
    with connected(database_url, actor=actor):
        refuse_automation_run(run_id, "forked", "Do its failed items again: `eventic run redrive`")
        click.echo(fork_run(run_id, step=step, app_version=app_version, reason=reason))


def _fields(found: Run) -> tuple[str, ...]:
    return tuple(type(found).__dataclass_fields__)


def _text(value: Any) -> str | None:
    """Write a value in a line; a text as it is, for what could not be decoded is JSON already."""
    return value if value is None or isinstance(value, str) else to_json_text(value)


def _step(step: Step) -> dict[str, Any]:
    versions = [{"class_type": v.class_type, "id": v.id, "version": v.version} for v in step.versions]
    return {
        "number": step.number,
        "name": step.name,
        "started_at": step.started_at,
        "completed_at": step.completed_at,
        "output": step.output,
        "error": step.error and error_values(step.error),
        "child_id": step.child_id,
        "versions": versions,
    }


def _lines(step: Step) -> Iterator[tuple[Any, ...]]:
    """Give a line for each version a step wrote, at least one; each begins with the step's number and name."""
    took = step.completed_at - step.started_at if step.completed_at and step.started_at else None
    text = step.error and error_text(step.error)
    for version in step.versions or (None,):
        wrote = (version.class_type, version.id, version.version) if version else (None, None, None)
        yield step.number, step.name, took, *wrote, step.child_id, text
