"""`eventic worker`: the group of what starts a worker, which is `worker`, and what looks at those there are, `fleet`.

Imports `fleet` when one of its commands is called: starting a worker and its help need nothing but Click.
"""

from __future__ import annotations

from typing import Final

import click

from eventic_core.cli.worker import worker

_HELP: Final = {
    "drain": "Ask workers to end when what they do is done.",
    "list": "List the workers, with what each does.",
    "run": "Do the background work of an application.",
}


class _Workers(click.Group):
    """A group in which what is no command is the application of `run`: `eventic worker shop.main`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is Click's
        """Name the commands."""
        return sorted(_HELP)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give a command, importing it where that takes time."""
        if cmd_name in ("list", "drain"):
            from eventic_core.cli import fleet

            return fleet.list_command if cmd_name == "list" else fleet.drain_command
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the command that was left out."""
        if args and args[0] not in _HELP and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the help of the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_HELP.items()))


@click.group(cls=_Workers, subcommand_metavar="[run] TARGET | list | drain SLOT...")
def workers() -> None:
    """Do the background work of an application, and see who does.

    `eventic worker TARGET` is short for `eventic worker run TARGET`.
    """


workers.add_command(worker, "run")
