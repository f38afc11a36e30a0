"""`eventic worker` and the console script `dbos-runner`: a process that does an application's background work.

Owns the one line that says what runs where; how it ends is in `ending`. Imports nothing heavier than Click before there
is something to run.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli._root import HELP, Root
from eventic_core.cli.application import connect, load
from eventic_core.cli.ending import Ending, drain, leave

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


@click.command()
@click.argument("target")
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="Work on this queue only; may be repeated.")
@click.option(
    "--database-url", metavar="URL", help="The database; beats what TARGET names. `embedded` is the embedded Postgres."
)
@click.option(
    "--drain-seconds", type=click.FloatRange(min=0), metavar="N", help="How long stopping waits for work that runs."
)
@click.option(
    "--health-port", type=click.IntRange(0, 65535), metavar="N", help="Serve /livez, /readyz and /metrics there."
)
@click.option(
    "--health-host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="An address; other than this machine's own only with EVENTIC_API_TOKENS.",
)
def worker(
    target: str,
    *,
    queues: tuple[str, ...],
    database_url: str | None,
    drain_seconds: float | None,
    health_port: int | None,
    health_host: str,
) -> None:
    """Do the background work of the application in TARGET, until told to stop.

    TARGET is `package.module` or `package.module:attribute`, found from the working directory too. Importing it
    defines the records, handlers and functions; an app made by Eventic.create_app, or a call of Eventic.init, says
    the application's name and its settings.

    SIGTERM and SIGINT (Ctrl-C) end it: it takes no more work, gives back what has not begun, and waits for what runs.
    A second one ends it at once; other workers then take its work over.
    """
    given = {"database_url": database_url, "drain_seconds": drain_seconds}
    with Ending() as ending, _health(health_port, health_host):
        load(target)
        ending.listen()  # again: an application may have set handlers of its own
        if not ending.began():
            _launch({name: value for name, value in given.items() if value is not None}, queues or None)
            try:
                click.echo(_line(), err=True)
                ending.wait(_is_asked_to_end)
            finally:
                drain()
    leave()


def _launch(given: dict[str, Any], queues: tuple[str, ...] | None) -> None:
    """Launch as the application declared; what is given on the command line wins, whatever it did itself already."""
    from eventic_core.app import Eventic

    connect(given, again=queues is not None and Eventic.is_launched())
    Eventic.launch(queues=queues)


def _health(port: int | None, host: str) -> AbstractContextManager[object]:
    """Serve how this process is from its start to its end, if there is a port for it."""
    if port is None:
        return contextlib.nullcontext()
    from eventic_core.operations.health_server import HealthServer
    from eventic_core.settings import Settings

    secret = Settings().api_tokens  # of the environment: the application, which may set more, is not imported yet
    return HealthServer(port, host=host, tokens=secret.get_secret_value() if secret is not None else "")


def _is_asked_to_end() -> bool:
    """Tell whether an operator has asked this worker to end; see `eventic worker drain`."""
    from eventic_core.runtime import process

    worker = process().worker
    return worker is not None and worker.drain_asked.is_set()


def _line() -> str:
    """Say in a line who works on what, and where the data are."""
    from eventic_core.app import Eventic
    from eventic_core.runtime import process
    from eventic_core.runtime.queues import queue_name

    worker = process().worker
    assert worker is not None
    served = [row.name for row in worker.served() if not row.name.startswith("eventic_")]  # those are our own
    queues = dict.fromkeys(queue_name(name) for name in served)
    name, place = Eventic.settings().name, process().store.database.label()
    return f"{name} {worker.slot} works on {', '.join(queues) or 'no queue'}; data in {place} ({Eventic.location()})"


class _Runner(Root):
    """`dbos-runner`: one command, with the errors and exit codes of `eventic`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take everything as the arguments of the one command."""
        del ctx
        return "dbos-runner", worker, args[1:]


def runner() -> None:
    """Run the console script `dbos-runner`."""
    _Runner(callback=lambda: None, help=HELP)(["dbos-runner", *sys.argv[1:]], prog_name="")
