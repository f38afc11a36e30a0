"""`eventic handler`: which handlers subscribe to what, and one removed that no code has any more.

Owns the options and what is printed; the subscriptions are the store's.
"""

from __future__ import annotations

from typing import Final

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.errors import NotFound
from eventic_core.runtime import process

LISTED: Final = ("name", "class", "kind", "method", "since", "caught_up")


@click.group()
def handler() -> None:
    """See the subscriptions of handlers, and remove those of a handler that is gone.

    They are stored when a worker that has the handler first starts; what is written goes by them from then on.
    """


@handler.command("list", short_help="List what each handler subscribes to.")
@json_option
@database_option
def list_command(database_url: str | None, *, as_json: bool) -> None:
    """List what each handler subscribes to: versions of a class and its subclasses, of one kind.

    since is the transaction id in the change feed from which on versions concern it, 0 for all; caught_up says
    whether the versions that were written while it was subscribed have been enqueued too.
    """
    with connected(database_url):
        found = [
            {
                "name": entry.subscription.handler,
                "class": entry.subscription.class_type,
                "kind": entry.subscription.kind,
                "method": entry.subscription.method or None,
                "since": entry.since_xid,
                "caught_up": entry.caught_up,
            }
            for entry in process().store.handlers.all
        ]
    if not found:
        click.echo("No handlers.", err=True)
    elif as_json:
        print_json(found)
    else:
        print_columns(LISTED, ([_text(row[name]) for name in LISTED] for row in found))


def _text(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


@handler.command("remove", short_help="Remove a handler that no code has any more.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_option
def remove_command(name: str, database_url: str | None, *, yes: bool) -> None:
    """Remove the subscriptions of handler NAME: from now on nothing is enqueued for it.

    A worker whose code still has the handler subscribes it again when it starts, from then on: what is written in
    between it never sees. How far it came and its dead letters are kept.
    """
    with connected(database_url):
        known = sorted({entry.subscription.handler for entry in process().store.handlers.all})
        if name not in known:
            message = f"No handler {name!r} is subscribed. They are: {', '.join(known) or 'none'}."
            raise NotFound(message)
        if not yes:
            click.confirm(f"Remove handler {name}? What is written from now on it will not see.", abort=True, err=True)
        count = process().store.handlers.unsubscribe(name)
    click.echo(f"Removed handler {name}: {count} subscription{'s' if count != 1 else ''}.", err=True)
