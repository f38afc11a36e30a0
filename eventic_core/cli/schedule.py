"""`eventic schedule`: schedules of DAGs and of jobs listed, looked into, paused, and run by hand or for the past.

Owns the options and what is printed; the schedules are `eventic_core.jobs`'.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.errors import NotFound

if TYPE_CHECKING:
    from eventic_core.jobs import Schedule
    from eventic_core.store.schedules import ScheduleProgress

_LISTED: Final = 10
_name = click.argument("name", metavar="NAME")
"""A schedule's name; or the name or id of a job with a schedule of its own."""


def _moment(_ctx: click.Context, _option: click.Parameter, value: str) -> datetime:
    """Read a moment; one without a zone is in UTC."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        message = f"{value!r} is no moment. Write 2026-03-29, 2026-03-29T02:30 or 2026-03-29T02:30+01:00."
        raise click.BadParameter(message) from error
    return found if found.utcoffset() is not None else found.replace(tzinfo=UTC)


@click.group()
def schedule() -> None:
    """List, pause, run and backfill schedules of DAGs and of stored jobs."""


@schedule.command("list", short_help="List schedules, when each is due next, and what became of it so far.")
@click.option("--client", "client_id", metavar="ID", help="Of this tenant.  [default: those without a tenant]")
@click.option("--all-tenants", is_flag=True, help="Of all tenants.")
@json_option
@database_option
def list_command(client_id: str | None, database_url: str | None, *, all_tenants: bool, as_json: bool) -> None:
    """List schedules by name, when each is due next, and how many due times were missed or skipped."""
    from eventic_core.jobs import Schedule
    from eventic_core.jobs.schedule_work import table

    if all_tenants and client_id is not None:
        message = "--client and --all-tenants: say one of them."
        raise click.UsageError(message)
    with connected(database_url):
        tenant = {} if all_tenants else {"client_id": client_id}
        found = sorted([*Schedule.where(**tenant).all(), *_of_jobs(**tenant)], key=lambda one: one.name)
        progress = table().progress([one.id for one in found])
        rows = [_row(one, progress.get(one.id)) for one in found]
        if as_json:
            print_json(rows)
        else:
            header = ("NAME", "DAG", "CLIENT", "SCHEDULE", "ZONE", "STATE", "NEXT", "MISSED", "SKIPPED", "ERROR")
            print_columns(header, [list(row.values()) for row in rows])


@schedule.command("show", short_help="Show a schedule, its last runs and its backfills.")
@_name
@json_option
@database_option
def show_command(name: str, database_url: str | None, *, as_json: bool) -> None:
    """Show what a schedule says and how far it has come, then its last runs and its backfills."""
    with connected(database_url):
        found = _find(name)
        values = _values(found)
        runs = [
            {"run": run.id, "due": run.due_at, "status": run.status, "error": run.error_summary}
            for run in found.runs(limit=_LISTED)
        ]
        backfills = [
            {
                "backfill": one.id,
                "from": one.from_at,
                "to": one.until_at,
                "status": one.status,
                **one.progress()._asdict(),
            }
            for one in found.backfills()[:_LISTED]
        ]
        if as_json:
            print_json([{**values, "runs": runs, "backfills": backfills}])
            return
        print_columns((), [(word, value) for word, value in values.items() if value is not None])
        for rows in (runs, backfills):
            if rows:
                click.echo()
                print_columns([word.upper() for word in rows[0]], [list(row.values()) for row in rows])


@schedule.command("next", short_help="Print the next due times of a schedule.")
@_name
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@database_option
def next_command(name: str, count: int, database_url: str | None) -> None:
    """Print the next due times of a schedule, one a line, on its own clocks; paused or not."""
    with connected(database_url):
        found = _find(name)
        for moment in found.next_due(count):
            click.echo(_shown(found, moment))


@schedule.command("pause", short_help="Start no more runs of a schedule.")
@_name
@actor_option
@database_option
def pause_command(name: str, actor: str | None, database_url: str | None) -> None:
    """Start no more runs of a schedule until `eventic schedule resume`; what runs goes on."""
    with connected(database_url, actor=actor):
        found = _find(name)
        found.pause()
        click.echo(f"{found.name}  paused")


@schedule.command("resume", short_help="Go on with a schedule that was paused.")
@_name
@click.option("--catch-up", is_flag=True, help="Make up for due times of the pause as for others that were missed.")
@actor_option
@database_option
def resume_command(name: str, actor: str | None, database_url: str | None, *, catch_up: bool) -> None:
    """Go on with a schedule that was paused; what was due meanwhile is left out unless asked for."""
    with connected(database_url, actor=actor):
        found = _find(name)
        found.resume(catch_up=catch_up)
        click.echo(f"{found.name}  active")


@schedule.command("run", short_help="Start a run of a schedule now.")
@_name
@click.option("--correlation-id", metavar="ID", help="Stamped on everything the run writes.")
@app_option
@actor_option
@database_option
def run_command(
    *, name: str, correlation_id: str | None, app: str | None, actor: str | None, database_url: str | None
) -> None:
    """Start a run at once, with the schedule's parameters, and print its id; needs the DAG's declaration: --app."""
    with connected(database_url, app, actor=actor):
        click.echo(_find(name).run_now(correlation_id=correlation_id).id)


@schedule.command("backfill", short_help="Run a schedule for a time that has passed.")
@_name
@click.option("--from", "start", required=True, callback=_moment, metavar="MOMENT", help="The first; UTC if no zone.")
@click.option("--to", "end", required=True, callback=_moment, metavar="MOMENT", help="The first one after.")
@click.option("--at-a-time", type=click.IntRange(1), default=1, show_default=True, help="Runs that go on at once.")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Due times there may be.")
@click.option("--dry-run", is_flag=True, help="Print the due times and start nothing.")
@actor_option
@database_option
def backfill_command(
    *,
    name: str,
    start: datetime,
    end: datetime,
    at_a_time: int,
    limit: int,
    actor: str | None,
    database_url: str | None,
    dry_run: bool,
) -> None:
    """Run a schedule for its due times in a range, oldest first, and print the id of the backfill.

    Due times that have a run of the schedule already are left out.
    """
    from eventic_core.jobs.backfill import due_of

    with connected(database_url, actor=actor):
        found = _find(name)
        if dry_run:
            for moment in due_of(found, start, end, limit=limit):
                click.echo(_shown(found, moment))
        else:
            click.echo(found.backfill(start, end, at_a_time=at_a_time, limit=limit).id)


def _find(name: str) -> Schedule:
    from eventic_core.jobs import Schedule

    found = Schedule.where(Schedule.fields.name == name).first()
    if found is not None:
        return found
    jobs = _of_jobs()
    matching = [one for one in jobs if name in (one.name, str(one.id))]
    if len(matching) > 1:
        ids = ", ".join(f"{one.id} of {one.client_id or 'no tenant'}" for one in matching)
        message = f"{len(matching)} jobs with a schedule are called {name!r}: name one by its id: {ids}."
        raise NotFound(message)
    if not matching:
        known = [*Schedule.where().order_by(Schedule.fields.name).limit(_LISTED).all(), *jobs[:_LISTED]]
        names = ", ".join(one.name for one in known) or "none"
        message = f"There is no schedule {name!r}. There are: {names}."
        raise NotFound(message)
    return matching[0]


def _of_jobs(**tenant: str | None) -> list[Schedule]:
    """Read the schedules of jobs that are part of no DAG."""
    from eventic_core.jobs import Job

    jobs = Job.where(Job.fields.schedule != None, dag=None, **tenant).order_by(Job.fields.name).all()  # noqa: E711
    return [job.as_schedule() for job in jobs]


def _row(found: Schedule, progress: ScheduleProgress | None) -> dict[str, Any]:
    """Give a schedule as a line of the list."""
    due = [] if found.paused else found.next_due()
    return {
        "name": found.name,
        "dag": found.dag,
        "client_id": found.client_id,
        "schedule": found.schedule,
        "zone": found.zone,
        "state": "paused" if found.paused else "active" if due else "ended",
        "next": _shown(found, due[0]) if due else None,
        "missed": progress.missed if progress else 0,
        "skipped": progress.skipped if progress else 0,
        "last_error": progress.last_error if progress else None,
    }


def _values(found: Schedule) -> dict[str, Any]:
    progress = found.progress()
    return {
        **_row(found, progress),
        "overlap": found.overlap,
        "catch_up_seconds": found.catch_up_seconds,
        "anchor": found.anchor,
        "starts_at": found.starts_at,
        "ends_at": found.ends_at,
        "parameters": found.parameters or None,
        "decided_until": progress.decided_until if progress else None,
        "waiting_due_at": progress.waiting_due_at if progress else None,
    }


def _shown(found: Schedule, moment: datetime) -> str:
    """Write a due time as the schedule's own clocks show it."""
    from eventic_core.runtime.cron import read_zone

    return moment.astimezone(read_zone(found.zone or "UTC")).isoformat()
