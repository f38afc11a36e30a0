"""`eventic queue`: what waits and runs in each queue, and why some of it will go on waiting.

Owns the options and what is printed; the numbers come from `runtime.runs`.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.runtime import runs


@click.group()
def queue() -> None:
    """See what waits and runs in the queues, and what is stuck."""


@queue.command("list", short_help="List the queues, with how many runs wait and why.")
@json_option
@database_option
def list_command(database_url: str | None, *, as_json: bool) -> None:
    """List every queue that is registered or has unfinished runs, with how many there are of each kind.

    oldest_seconds is how long ago the first of the waiting runs was made or fell due, concurrency how many one worker
    takes at once; blocked says why runs wait that no worker will take.
    """
    with connected(database_url):
        found = [asdict(queue) for queue in runs.queues()]
    if not found:
        click.echo("No queues.", err=True)
    elif as_json:
        print_json(found)
    else:
        print_columns(
            tuple(found[0]), (tuple((row | {"blocked": "; ".join(row["blocked"]) or None}).values()) for row in found)
        )
