"""`eventic worker list` and `drain`: the workers of a database, and asking some to end.

Owns the options and what is printed; what can be asked of a worker is `operations.workers`'.
"""

from __future__ import annotations

from typing import Final

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, database_option, json_option, reason_option, request_key_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.operations.workers import drain_workers, list_workers

LISTED: Final = (
    *("slot", "state", "machine", "pid", "application", "app_version", "running", "claimed", "recovered"),
    *("beat_seconds", "started_at", "queues"),
)


@click.command("list", short_help="List the workers, with what each does.")
@click.option("--ended", is_flag=True, help="Also those that ended within a week, stopped or lost.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@json_option
@database_option
def list_command(database_url: str | None, limit: int, *, ended: bool, as_json: bool) -> None:
    """List the workers of the database, those alive first.

    state is alive, late (no beat for 6 seconds: after 20 its runs are taken over), draining, stopped or lost; running
    and claimed are its pieces of work, recovered the runs that others took over from it, beat_seconds is how long ago
    it last said that it is alive, by the database's clock.
    """
    with connected(database_url):
        found = [worker._asdict() for worker in list_workers(ended=ended, limit=limit)]
    if not found:
        click.echo("No workers.", err=True)
    elif as_json:
        print_json(found)
    else:
        rows = ({**worker, "queues": ", ".join(worker["queues"]) or None} for worker in found)
        print_columns(LISTED, (tuple(row[name] for name in LISTED) for row in rows))


@click.command("drain", short_help="Ask workers to end when what they do is done.")
@click.argument("slots", metavar="SLOT...", nargs=-1, required=True)
@reason_option
@request_key_option
@actor_option
@database_option
def drain_command(
    slots: tuple[str, ...], reason: str | None, request_key: str | None, actor: str | None, database_url: str | None
) -> None:
    """Ask workers, named as `eventic worker list` does, to end as by SIGTERM: they take no more work."""
    with connected(database_url, actor=actor):
        for slot in drain_workers(slots, reason=reason, request_key=request_key):
            print_columns((), [(slot, "asked to end")])
