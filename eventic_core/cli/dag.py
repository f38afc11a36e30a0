"""`eventic dag`: runs of DAGs begun, watched, looked into and steered.

Owns the options and what is printed; the runs are `eventic_core.jobs`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from eventic_core.cli.application import connected
from eventic_core.cli.dag_live import follow
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.errors import Invalid, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.status import JobLook

_run = click.argument("run_id", metavar="RUN")
_watch = click.option("--watch", "watched", is_flag=True, help="Watch it to its end, as `eventic dag watch`.")


@click.group()
def dag() -> None:
    """Start, watch and steer runs of DAGs of jobs."""


@dag.command("run", short_help="Start a run of a DAG.")
@click.argument("name", metavar="DAG")
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--correlation-id", metavar="ID", help="Stamped on everything the run writes.")
@click.option("--client", "client_id", metavar="ID", help="The tenant whose run it is, and whose DAG if it is stored.")
@click.option("--stored", is_flag=True, help="Run the DAG as it is stored, also if one of the name is declared.")
@_watch
@app_option
@actor_option
@database_option
def run_command(
    *,
    name: str,
    parameters: tuple[str, ...],
    correlation_id: str | None,
    client_id: str | None,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    stored: bool,
    watched: bool,
) -> None:
    """Start a run of DAG with these parameters and print the run's id.

    DAG is one that is declared, or else one that is stored as records. Workers that declare it, or its jobs, do them;
    this process only needs the declaration: --app. A value is JSON, or else text.
    """
    from eventic_core.jobs.definition import dag_called

    with connected(database_url, app, actor=actor):
        found = dag_called(name, client_id, stored=stored)
        run = found.start(correlation_id=correlation_id, client_id=client_id, **_values(parameters))
        click.echo(run.id)
        if watched:
            follow(run)


@dag.command("watch", short_help="Watch a run of a DAG to its end.")
@_run
@database_option
def watch_command(run_id: str, database_url: str | None) -> None:
    """Watch a run to its end: a table of its jobs on a terminal, elsewhere a line for each as it ends; then its status.

    Ends with 0 if the run completed and with 1 if not. Interrupting the command leaves the run alone.
    """
    with connected(database_url):
        follow(_find(run_id))


@dag.command("show", short_help="Show the jobs of a run, and why each waits, was skipped or failed.")
@_run
@json_option
@database_option
def show_command(run_id: str, database_url: str | None, *, as_json: bool) -> None:
    """Show the jobs of a run in the order of the plan: state, attempts, seconds, and why."""
    with connected(database_url):
        run = _find(run_id)
        rows = [_row(look) for look in run.look()]
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
            follow(run)


@dag.command("mark", short_help="Say by hand how a job of a run has ended.")
@_run
@click.argument("job")
@click.option("--reason", metavar="TEXT", required=True, help="Why; noted with the job's run.")
@click.option("--result", metavar="JSON", help="What it gives those after it; of a branch, its choice.")
@click.option(
    "--status",
    type=click.Choice(["COMPLETED", "FAILED", "SKIPPED"], case_sensitive=False),
    default="COMPLETED",
    show_default=True,
)
@_watch
@app_option
@actor_option
@database_option
def mark_command(
    *,
    run_id: str,
    job: str,
    reason: str,
    result: str | None,
    status: str,
    app: str | None,
    actor: str | None,
    database_url: str | None,
    watched: bool,
) -> None:
    """Say by hand how a job has ended, and print the names of those that may run now; needs the declaration: --app.

    What it comes to, if it is being done, is not stored. What comes after it is decided anew; of a run that has ended,
    in a new attempt.
    """
    value = None if result is None else _json(result)
    with connected(database_url, app, actor=actor):
        run = _find(run_id)
        for name in run.mark(job, reason=reason, result=value, status=status):
            click.echo(name)
        if watched:
            follow(run)


@dag.command("fork", short_help="Start a run with results of another one.")
@_run
@click.option(
    "--from", "jobs", metavar="JOB", multiple=True, help="Do it anew, and all after it.  [default: what failed]"
)
@click.option("--parameter", "parameters", metavar="NAME=VALUE", multiple=True, help="Another value than that run's.")
@_watch
@app_option
@actor_option
@database_option
def fork_command(
    *,
    run_id: str,
    jobs: tuple[str, ...],
    parameters: tuple[str, ...],
    app: str | None,
    actor: str | None,
    database_url: str | None,
    watched: bool,
) -> None:
    """Start a run that does some jobs of RUN anew, with all after them, and takes over the others; print its id.

    This process needs the declaration: --app. A value is JSON, or else text.
    """
    with connected(database_url, app, actor=actor):
        made = _find(run_id).fork(jobs or None, **_values(parameters))
        click.echo(made.id)
        if watched:
            follow(made)


def _row(look: JobLook) -> dict[str, Any]:
    took = look.finished_at - look.started_at if look.started_at and look.finished_at else None
    return {
        "job": look.job,
        "state": look.state,
        "attempts": look.attempts,
        "seconds": took and took.total_seconds(),
        "why": look.why,
    }


def _json(text: str) -> Any:
    from pydantic_core import from_json

    try:
        return from_json(text)
    except ValueError as error:
        message = f"{text!r} is no JSON: {error}. Write a text in quotes: --result '\"text\"'."
        raise Invalid(message) from error


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
