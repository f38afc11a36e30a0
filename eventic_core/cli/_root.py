"""The root command: the table of sub-commands, their lazy import, and how errors and exit codes reach the shell.

Owns `--debug` and every exit code. Imports nothing heavier than Click, so that `eventic --help` answers at once.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import traceback
from typing import Any, Final, NamedTuple

import click

from eventic_core.errors import EventicError

INTERRUPTED: Final = 130


class _Entry(NamedTuple):
    """Where a sub-command lives and what `eventic --help` says of it."""

    module: str
    attribute: str
    help: str


COMMANDS: Final = {
    "batch": _Entry("eventic_core.cli.batch", "batch", "Load batches of items for automations."),
    "dag": _Entry("eventic_core.cli.dag", "dag", "Start, watch and steer runs of DAGs of jobs."),
    "dead-letter": _Entry(
        "eventic_core.cli.dead_letter", "dead_letter", "See, retry and discard versions that handlers gave up on."
    ),
    "demo": _Entry("eventic_core.cli.demo", "demo", "Show records at work on an embedded Postgres."),
    "doctor": _Entry("eventic_core.cli.doctor", "doctor", "Say what is well, what is not, and what to do about it."),
    "erase": _Entry("eventic_core.cli.erase", "erase", "Make values of a record unreadable, where runs keep them too."),
    "grant": _Entry(
        "eventic_core.cli.grant", "grant_command", "Let a role of Postgres do what processes need, and nothing else."
    ),
    "handler": _Entry("eventic_core.cli.handler", "handler", "List what handlers subscribe to, and remove one."),
    "migrate": _Entry("eventic_core.cli.migrate", "migrate", "Bring the tables in schema eventic up to date."),
    "purge": _Entry("eventic_core.cli.purge", "purge", "Remove deleted records for good."),
    "queue": _Entry("eventic_core.cli.queue", "queue", "See what waits and runs in the queues, and what is stuck."),
    "retention": _Entry(
        "eventic_core.cli.retention", "retention", "Remove what is over and old, by rules of how long it is kept."
    ),
    "run": _Entry("eventic_core.cli.run", "run", "Start, watch, steer and undo runs, list and look into them."),
    "schedule": _Entry("eventic_core.cli.schedule", "schedule", "List, pause, run and backfill schedules of DAGs."),
    "version": _Entry(
        "eventic_core.cli.version", "version", "Print the versions of the package and what it stands on."
    ),
    "worker": _Entry("eventic_core.cli.workers", "workers", "Do an application's background work, and see who does."),
}

HELP: Final = """Versioned, durable records on Postgres.

\b
Exit codes:
  0    done
  1    failed, or not found
  2    wrong usage
  3    configuration, database or migration
  130  interrupted
"""


class Root(click.Group):
    """A group that imports a sub-command when it is called, and prints errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is Click's
        """Name the sub-commands of the table."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a sub-command, `None` for one that is not in the table."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(command, click.Command):
            message = f"{entry.module}.{entry.attribute} is not a command"
            raise TypeError(message)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command; an unknown one is refused with the nearest name."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The commands are {', '.join(sorted(COMMANDS))}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the sub-commands from the table, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; an error becomes a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except EventicError as error:
            _report(ctx, str(error), error.code)
            ctx.exit(error.exit_code)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # Click ends quietly when the reader of a pipe has gone
            _report(ctx, f"{type(error).__name__}: {error}. Run again as `eventic --debug` to see where.", "unexpected")
            ctx.exit(1)


def _report(ctx: click.Context, message: str, code: str) -> None:
    if ctx.params.get("debug"):
        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(f"Error: {message} [{code}]", err=True)


@click.group(cls=Root, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, expose_value=True, help="Show the traceback of an error.")
def main(*, debug: bool) -> None:
    """See `HELP`; the flag is read where errors are reported."""
    del debug
