"""`eventic queue`: what waits and runs in each queue, why some of it will go on waiting, and pausing it.

Owns the options and what is printed; the numbers come from `runtime.runs`, pausing is `operations.queues`'.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, database_option, json_option, reason_option, request_key_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.operations.queues import PausedQueue, pause_queue, paused_queues, resume_queue
from eventic_core.runtime import runs
from eventic_core.runtime.queues import queue_name


@click.group()
def queue() -> None:
    """See what waits and runs in the queues, and what is stuck; pause and resume them."""


@queue.command("list", short_help="List the queues, with how many runs wait and why.")
@json_option
@database_option
def list_command(database_url: str | None, *, as_json: bool) -> None:
    """List every queue that is registered or has unfinished runs, with how many there are of each kind.

    oldest_seconds is how long ago the first of the waiting runs was made or fell due, concurrency how many one worker
    takes at once; blocked says why runs wait that no worker will take, or that the queue is paused.
    """
    with connected(database_url):
        paused = paused_queues()
        found = [asdict(queue) | _pause(queue, paused) for queue in runs.queues()]
    if not found:
        click.echo("No queues.", err=True)
    elif as_json:
        print_json(found)
    else:
        print_columns(
            tuple(found[0]), (tuple((row | {"blocked": "; ".join(row["blocked"]) or None}).values()) for row in found)
        )


def _pause(queue: runs.QueueInfo, paused: dict[str, PausedQueue]) -> dict[str, object]:
    """Add to why a queue's work waits that somebody paused it."""
    pause = paused.get(queue_name(queue.name))
    if pause is None:
        return {}
    why = f"paused by {pause.paused_by or 'nobody named'}" + (f": {pause.reason}" if pause.reason else "")
    return {"blocked": (why, *queue.blocked)}


@queue.command("pause", short_help="Let nothing of queues be claimed any more.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@reason_option
@request_key_option
@actor_option
@database_option
def pause_command(
    names: tuple[str, ...], reason: str | None, request_key: str | None, actor: str | None, database_url: str | None
) -> None:
    """Let nothing of the queues NAME... be claimed from about two seconds on; what runs goes on, enqueueing too."""
    with connected(database_url, actor=actor):
        for name in names:
            is_new = pause_queue(name, reason=reason, request_key=_key(request_key, name))
            print_columns((), [(name, "paused" if is_new else "paused already")])


@queue.command("resume", short_help="Let the work of queues be claimed again.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@reason_option
@request_key_option
@actor_option
@database_option
def resume_command(
    names: tuple[str, ...], reason: str | None, request_key: str | None, actor: str | None, database_url: str | None
) -> None:
    """Let the work of the queues NAME... be claimed again."""
    with connected(database_url, actor=actor):
        for name in names:
            is_new = resume_queue(name, reason=reason, request_key=_key(request_key, name))
            print_columns((), [(name, "resumed" if is_new else "not paused")])


def _key(request_key: str | None, name: str) -> str | None:
    """Give each queue of one request a key of its own."""
    return None if request_key is None else f"{request_key} {name}"
