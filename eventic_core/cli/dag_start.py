"""`eventic dag run` and `watch`: a run of a DAG begun or found, followed to its end, and if asked for done here.

Owns the options and what is printed, and how a process that does the jobs ends; the runs are `eventic_core.jobs`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from eventic_core.automation.status import ExecutionStatus
from eventic_core.cli._root import INTERRUPTED
from eventic_core.cli.application import connected
from eventic_core.cli.dag_arguments import find_dag_run, read_parameters, run_argument, watch_option
from eventic_core.cli.dag_live import follow, watch
from eventic_core.cli.ending import Ending, drain, leave
from eventic_core.cli.options import actor_option, app_option, database_option

if TYPE_CHECKING:
    from eventic_core.jobs.dag_run import DagRun

_work: Final = click.option(
    "--work", "works", is_flag=True, help="Do the jobs in this process too, as a worker of --app, and watch."
)


@click.command("run", short_help="Start a run of a DAG.")
@click.argument("name", metavar="DAG")
@click.argument("parameters", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--correlation-id", metavar="ID", help="Stamped on everything the run writes.")
@click.option("--client", "client_id", metavar="ID", help="The tenant whose run it is, and whose DAG if it is stored.")
@click.option("--stored", is_flag=True, help="Run the DAG as it is stored, also if one of the name is declared.")
@watch_option
@_work
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
    works: bool,
) -> None:
    """Start a run of DAG with these parameters and print the run's id.

    DAG is one that is declared, or else one that is stored as records. Workers that declare it, or its jobs, do them;
    this process only needs the declaration: --app. A value is JSON, or else text.

    With --work this process is such a worker until the run has ended; then it drains, and ends with 0 if the run
    completed and with 1 if not. Told to stop before (Ctrl-C, SIGTERM), or killed, it leaves the run to the next worker:
    `eventic dag watch RUN --work`.
    """
    from eventic_core.jobs.definition import dag_called

    with connected(database_url, app, actor=actor):
        found = dag_called(name, client_id, stored=stored)
        run = found.start(correlation_id=correlation_id, client_id=client_id, **read_parameters(parameters))
        click.echo(run.id)
        if works:
            _do(run, app)
        elif watched:
            follow(run)


@click.command("watch", short_help="Watch a run of a DAG to its end.")
@run_argument
@_work
@app_option
@database_option
def watch_command(run_id: str, app: str | None, database_url: str | None, *, works: bool) -> None:
    """Watch a run to its end: a table of its jobs on a terminal, elsewhere a line for each as it ends; then its status.

    Ends with 0 if the run completed and with 1 if not. Interrupting the command leaves the run alone.

    With --work this process does the jobs too, as `eventic dag run --work`: it goes on with a run whose workers were
    stopped or killed.
    """
    from eventic_core.jobs.definition import definition_of

    with connected(database_url, app):
        run = find_dag_run(run_id)
        if works and not run.status.is_finished:
            definition_of(run.id, run.dag)  # refuses, rather than waits for ever for a worker that can do it
            _do(run, app)
        else:
            follow(run)


def _do(run: DagRun, app: str | None) -> None:
    """Be a worker until a run has ended, and watch it; ends the command with what came of it, after the drain."""
    from eventic_core.app import Eventic

    with Ending() as ending:
        Eventic.launch()
        try:
            watch(run, is_over=ending.began)
        finally:
            drain()
    code = 0 if run.status == ExecutionStatus.COMPLETED else 1
    if not run.status.is_finished:
        code = INTERRUPTED
        again = f"eventic dag watch {run.id} --app {app} --work"
        click.echo(f"Run {run.id} goes on with the next worker: `eventic worker {app}`, or `{again}`.", err=True)
    leave(code)
    click.get_current_context().exit(code)
