"""`eventic dag rerun`, `mark` and `fork`: what a run of a DAG has done, done again, said by hand, or taken over.

Owns the options and what is printed; what the commands do is `eventic_core.jobs`'.
"""

from __future__ import annotations

import click

from eventic_core.cli.application import connected
from eventic_core.cli.dag_arguments import find_dag_run, read_json, read_parameters, run_argument, watch_option
from eventic_core.cli.dag_live import follow
from eventic_core.cli.options import actor_option, app_option, database_option


@click.command("rerun", short_help="Do jobs of an ended run again.")
@run_argument
@click.option("--job", metavar="NAME", help="This one and all after it.  [default: what failed, and all after it]")
@watch_option
@app_option
@actor_option
@database_option
def rerun_command(
    *, run_id: str, job: str | None, app: str | None, actor: str | None, database_url: str | None, watched: bool
) -> None:
    """Do jobs of an ended run again, in a new attempt of it, and print their names; needs the declaration: --app."""
    with connected(database_url, app, actor=actor):
        run = find_dag_run(run_id)
        for name in run.rerun(job):
            click.echo(name)
        if watched:
            follow(run)


@click.command("mark", short_help="Say by hand how a job of a run has ended.")
@run_argument
@click.argument("job")
@click.option("--reason", metavar="TEXT", required=True, help="Why; noted with the job's run.")
@click.option("--result", metavar="JSON", help="What it gives those after it; of a branch, its choice.")
@click.option(
    "--status",
    type=click.Choice(["COMPLETED", "FAILED", "SKIPPED"], case_sensitive=False),
    default="COMPLETED",
    show_default=True,
)
@watch_option
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
    value = None if result is None else read_json(result)
    with connected(database_url, app, actor=actor):
        run = find_dag_run(run_id)
        for name in run.mark(job, reason=reason, result=value, status=status):
            click.echo(name)
        if watched:
            follow(run)


@click.command("fork", short_help="Start a run with results of another one.")
@run_argument
@click.option(
    "--from", "jobs", metavar="JOB", multiple=True, help="Do it anew, and all after it.  [default: what failed]"
)
@click.option("--parameter", "parameters", metavar="NAME=VALUE", multiple=True, help="Another value than that run's.")
@watch_option
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
        made = find_dag_run(run_id).fork(jobs or None, **read_parameters(parameters))
        click.echo(made.id)
        if watched:
            follow(made)
