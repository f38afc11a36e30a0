"""`eventic dag`: runs of DAGs begun, watched, looked into and steered.

Owns the options and what is printed; the runs are `eventic_core.jobs`'.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from eventic_core.automation.status import ExecutionStatus
from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.errors import Invalid, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.jobs.dag_run import DagRun

_WATCH_SECONDS = 0.1
_run = click.argument("run_id", metavar="RUN")
_watch = click.option("--watch", "watched", is_flag=True, help="Print each job as it ends, then the run's status.")


@click.group()
def dag() -> None:
    """Start, watch and steer runs of DAGs of jobs."""


@dag.command("run", short_help="Start a run of a DAG.")
@click.argument("name", metavar="DAG")
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--correlation-id", metavar="ID", help="Stamped on everything the run writes.")
@_watch
@app_option
@actor_option
@database_option
def run_command(
    *,
    name: str,
    parameters: tuple[str, ...],
    correlation_id: str | None,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    watched: bool,
) -> None:
    """Start a run of DAG with these parameters and print the run's id.

    Workers that declare the DAG do the jobs; this process only needs its declaration: --app. A value is JSON, or else
    text.
    """
    from eventic_core.jobs.declared import find

    with connected(database_url, app, actor=actor):
        run = find(name).start(correlation_id=correlation_id, **_values(parameters))
        click.echo(run.id)
        if watched:
            _follow(run)


@dag.command("watch", short_help="Watch a run of a DAG to its end.")
@_run
@database_option
def watch_command(run_id: str, database_url: str | None) -> None:
    """Print each job of a run as it ends, then the run's status; ends with 0 if it completed and with 1 if not.

    Interrupting the command leaves the run alone.
    """
    with connected(database_url):
        _follow(_find(run_id))


@dag.command("show", short_help="Show the jobs of a run, and why each waits, was skipped or failed.")
@_run
@json_option
@database_option
def show_command(run_id: str, database_url: str | None, *, as_json: bool) -> None:
    """Show the jobs of a run in the order of the plan: state, attempts, seconds, and why."""
    with connected(database_url):
        run = _find(run_id)
        found = {str(one.job): one for one in run.job_runs()}
        rows = []
        for name, state in run.states().items():
            one = found.get(name)
            attempts, seconds = (one.attempt_count, one.duration) if one is not None else (0, None)
            rows.append({"job": name, "state": state, "attempts": attempts, "seconds": seconds, "why": run.why(name)})
        if as_json:
            print_json(rows)
        else:
            print_columns(("JOB", "STATE", "ATTEMPTS", "SECONDS", "WHY"), [list(row.values()) for row in rows])


@dag.command("draw", short_help="Draw a DAG, or a run of one, as Mermaid or SVG.")
@click.argument("what", metavar="DAG|RUN")
@click.option("--format", "form", type=click.Choice(["mermaid", "svg"]), default="mermaid", show_default=True)
@app_option
@database_option
def draw_command(what: str, form: str, app: str | None, database_url: str | None) -> None:
    """Draw a DAG that --app declares, or a run with the states of its jobs."""
    from eventic_core.jobs.declared import find

    with connected(database_url, app):
        drawn: Any = _find(what) if _is_id(what) else find(what)
        click.echo(drawn.mermaid() if form == "mermaid" else drawn.svg())


@dag.command("pause", short_help="Begin no more jobs of a run.")
@_run
@actor_option
@database_option
def pause_command(run_id: str, actor: str | None, database_url: str | None) -> None:
    """Begin no more jobs of a run until `eventic dag resume`; those that are being done are finished."""
    with connected(database_url, actor=actor):
        run = _find(run_id)
        run.pause()
        click.echo(f"{run.id}  paused")


@dag.command("resume", short_help="Go on with a run that was paused.")
@_run
@actor_option
@database_option
def resume_command(run_id: str, actor: str | None, database_url: str | None) -> None:
    """Go on with a run that was paused."""
    with connected(database_url, actor=actor):
        run = _find(run_id)
        run.resume()
        click.echo(f"{run.id}  {run.status}")


@dag.command("cancel", short_help="End a run with all its jobs.")
@_run
@click.option("--reason", default="cancelled from the command line", show_default=True)
@actor_option
@database_option
def cancel_command(run_id: str, reason: str, actor: str | None, database_url: str | None) -> None:
    """End what a run has not finished; what its jobs come to after that is not stored."""
    with connected(database_url, actor=actor):
        run = _find(run_id)
        run.cancel(reason)
        click.echo(f"{run.id}  {run.status}")


@dag.command("rerun", short_help="Do jobs of an ended run again.")
@_run
@click.option("--job", metavar="NAME", help="This one and all after it.  [default: what failed, and all after it]")
@_watch
@app_option
@actor_option
@database_option
def rerun_command(
    *, run_id: str, job: str | None, app: str | None, actor: str | None, database_url: str | None, watched: bool
) -> None:
    """Do jobs of an ended run again, in a new attempt of it, and print their names; needs the declaration: --app."""
    with connected(database_url, app, actor=actor):
        run = _find(run_id)
        for name in run.rerun(job):
            click.echo(name)
        if watched:
            _follow(run)


def _values(parameters: Sequence[str]) -> dict[str, Any]:
    from pydantic_core import from_json

    found: dict[str, Any] = {}
    for parameter in parameters:
        name, sign, text = parameter.partition("=")
        if not sign or not name.isidentifier():
            message = f"{parameter!r} is no parameter: write NAME=VALUE."
            raise Invalid(message)
        try:
            found[name] = from_json(text)
        except ValueError:
            found[name] = text
    return found


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _find(run_id: str) -> DagRun:
    from eventic_core.jobs.dag_run import DagRun

    found = DagRun.where(DagRun.fields.id == UUID(run_id)).all() if _is_id(run_id) else []
    if not found:
        message = f"There is no run {run_id!r} of a DAG."
        raise RunNotFound(message)
    return found[0]


def _follow(run: DagRun) -> None:
    """Print each job once as it ends, then the run; ends the command with 1 unless the run completed."""
    told: set[str] = set()
    while True:
        run.refresh()
        for name, state in run.states().items():
            if state.is_finished and name not in told:
                told.add(name)
                why = run.why(name)
                click.echo(f"{name}  {state}" + (f"  {why}" if why else ""))
        if run.status.is_finished:
            break
        time.sleep(_WATCH_SECONDS)
    click.echo(f"{run.id}  {run.status}" + (f"  {run.error_summary}" if run.error_summary else ""))
    if run.status != ExecutionStatus.COMPLETED:
        click.get_current_context().exit(1)
