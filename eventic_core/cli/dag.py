"""`eventic dag`: the group of its commands, and those by which runs are listed, looked into, paused and cancelled.

Owns the options and what is printed; the runs are `eventic_core.jobs`'. Runs are begun and followed in `dag_start`,
and done again in `dag_again`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli.application import connected
from eventic_core.cli.dag_again import fork_command, mark_command, rerun_command
from eventic_core.cli.dag_arguments import find_dag_run, is_id, run_argument
from eventic_core.cli.dag_start import run_command, watch_command
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json

if TYPE_CHECKING:
    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.status import JobLook


@click.group()
def dag() -> None:
    """Start, watch and steer runs of DAGs of jobs."""


for _command in (run_command, watch_command, rerun_command, mark_command, fork_command):
    dag.add_command(_command)


@dag.command("list", short_help="List runs of DAGs, the latest first.")
@click.argument("name", metavar="[DAG]", required=False)
@click.option("--client", "client_id", metavar="ID", help="Of this tenant.  [default: those without a tenant]")
@click.option("--all-tenants", is_flag=True, help="Of all tenants.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@json_option
@database_option
def list_command(
    *, name: str | None, client_id: str | None, limit: int, database_url: str | None, all_tenants: bool, as_json: bool
) -> None:
    """List runs of all DAGs, or of DAG, the latest first: what became of each, when it began and how long it took.

    The seconds of a run that goes on are those so far.
    """
    if all_tenants and client_id is not None:
        message = "--client and --all-tenants: say one of them."
        raise click.UsageError(message)
    from eventic_core.jobs.run_repository import DagRunRepository

    with connected(database_url):
        runs, most = DagRunRepository(), limit + 1  # one more says that there are more
        found = (
            runs.list_all_tenants(dag=name, limit=most) if all_tenants else runs.list(client_id, dag=name, limit=most)
        )
    rows = [_listed(run) for run in found[:limit]]
    if as_json:
        print_json(rows)
    elif rows:
        header = ("RUN", "DAG", "STATUS", "STARTED", "SECONDS", "CLIENT")
        print_columns(header, [list(row.values()) for row in rows])
    else:
        click.echo("No runs.", err=True)
    if len(found) > limit:
        click.echo(f"There are more: --limit {limit * 10}", err=True)


@dag.command("show", short_help="Show the jobs of a run, and why each waits, was skipped or failed.")
@run_argument
@json_option
@database_option
def show_command(run_id: str, database_url: str | None, *, as_json: bool) -> None:
    """Show the jobs of a run in the order of the plan: state, attempts, seconds, and why."""
    with connected(database_url):
        run = find_dag_run(run_id)
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
    from eventic_core.jobs.declared_dag import find

    with connected(database_url, app):
        drawn: Any = find_dag_run(what) if is_id(what) else find(what)
        click.echo(drawn.mermaid() if form == "mermaid" else drawn.svg())


@dag.command("pause", short_help="Begin no more jobs of a run.")
@run_argument
@actor_option
@database_option
def pause_command(run_id: str, actor: str | None, database_url: str | None) -> None:
    """Begin no more jobs of a run until `eventic dag resume`; those that are being done are finished."""
    with connected(database_url, actor=actor):
        run = find_dag_run(run_id)
        run.pause()
        click.echo(f"{run.id}  paused")


@dag.command("resume", short_help="Go on with a run that was paused.")
@run_argument
@actor_option
@database_option
def resume_command(run_id: str, actor: str | None, database_url: str | None) -> None:
    """Go on with a run that was paused."""
    with connected(database_url, actor=actor):
        run = find_dag_run(run_id)
        run.resume()
        click.echo(f"{run.id}  {run.status}")


@dag.command("cancel", short_help="End a run with all its jobs.")
@run_argument
@click.option("--reason", default="cancelled from the command line", show_default=True)
@actor_option
@database_option
def cancel_command(run_id: str, reason: str, actor: str | None, database_url: str | None) -> None:
    """End what a run has not finished; what its jobs come to after that is not stored."""
    with connected(database_url, actor=actor):
        run = find_dag_run(run_id)
        run.cancel(reason)
        click.echo(f"{run.id}  {run.status}")


def _listed(run: DagRun) -> dict[str, Any]:
    """Give a run as a line of the list."""
    took = (run.finished_at or datetime.now(UTC)) - run.started_at if run.started_at else None
    return {
        "id": run.id,
        "dag": run.dag,
        "status": "PAUSED" if run.paused and not run.status.is_finished else run.status,
        "started_at": run.started_at,
        "seconds": took and max(0.0, took.total_seconds()),
        "client_id": run.client_id,
    }


def _row(look: JobLook) -> dict[str, Any]:
    took = look.finished_at - look.started_at if look.started_at and look.finished_at else None
    return {
        "job": look.job,
        "state": look.state,
        "attempts": look.attempts,
        "seconds": took and took.total_seconds(),
        "why": look.why,
    }
