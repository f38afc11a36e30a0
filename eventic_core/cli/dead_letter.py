"""`eventic dead-letter`: versions that handlers gave up on, listed, tried again and discarded.

Owns the options and what is printed; what the commands do is in `runtime.dead_letters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from eventic_core.app import Eventic
from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, database_option, json_option, reason_option
from eventic_core.cli.output import error_values, print_columns, print_each, print_json
from eventic_core.operations.dead_letters import discard_letter, retry_letter
from eventic_core.runtime.dead_letters import ALL, STATES, DeadLetter

if TYPE_CHECKING:
    from uuid import UUID

LISTED: Final = ("id", "state", "handler", "class", "record", "version", "attempts", "failed_at", "settled_by", "error")
_ANY_NUMBER: Final = 1_000_000

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _chosen(command: _Command) -> _Command:
    """Add the ways to choose letters."""
    command = click.option("--all", "everything", is_flag=True, help="All that are open.")(command)
    command = click.option("--handler", metavar="NAME", help="All that are open of this handler.")(command)
    return click.argument("letter_ids", metavar="[ID...]", nargs=-1, type=click.UUID)(command)


@click.group("dead-letter")
def dead_letter() -> None:
    """See the versions that handlers gave up on, and let workers try them again.

    A letter is open until it is retried or discarded, retried while a worker is to try it, then done or open again.
    """


@dead_letter.command("list")
@click.option("--handler", metavar="NAME", help="Only of this handler.")
@click.option(
    "--state",
    type=click.Choice((*STATES, ALL), case_sensitive=False),
    default="open",
    show_default=True,
    help="Only in this state.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@json_option
@database_option
def list_command(handler: str | None, state: str, limit: int, database_url: str | None, *, as_json: bool) -> None:
    """List dead letters, newest first."""
    with connected(database_url):
        found = Eventic.dead_letters.list(handler, state=state, limit=limit + 1)
    rows = [_row(letter) for letter in found[:limit]]
    if not rows:
        click.echo("No dead letters.", err=True)
    elif as_json:
        print_json(rows)
    else:
        print_columns(LISTED, ([_text(row[name]) for name in LISTED] for row in rows))
    if len(found) > limit:
        click.echo(f"There are more: --limit {limit * 10}", err=True)


@dead_letter.command("retry", short_help="Let a worker try dead letters again.")
@_chosen
@reason_option
@actor_option
@database_option
def retry_command(
    letter_ids: Sequence[UUID], database_url: str | None, reason: str | None, actor: str | None, **chosen: Any
) -> None:
    """Let a worker handle these versions once more, and print each id with the run that does it.

    Only the version itself is handled, not the newer ones that came after it. If it fails again the letter is open
    again.
    """

    def retry(letter_id: UUID) -> str:
        return retry_letter(letter_id, reason=reason).id

    _settle(retry, letter_ids, database_url, actor=actor, **chosen)


@dead_letter.command("discard", short_help="Give dead letters up for good.")
@_chosen
@reason_option
@actor_option
@click.option("--yes", is_flag=True, help="Do not ask, where more than those named are discarded.")
@database_option
def discard_command(
    letter_ids: Sequence[UUID],
    database_url: str | None,
    reason: str | None,
    actor: str | None,
    *,
    yes: bool,
    **chosen: Any,
) -> None:
    """Give these versions up for good, and print each id; they stay listed with --state discarded."""

    def discard(letter_id: UUID) -> str:
        discard_letter(letter_id, reason=reason)
        return "discarded"

    ask = None if yes else "Discard {} dead letters?"
    _settle(discard, letter_ids, database_url, ask=ask, actor=actor, **chosen)


def _settle(
    settle: Callable[[UUID], str],
    letter_ids: Sequence[UUID],
    database_url: str | None,
    *,
    handler: str | None,
    everything: bool,
    ask: str | None = None,
    actor: str | None = None,
) -> None:
    """Settle each letter by itself; those that refuse are reported, and the last of them ends the command."""
    if (bool(letter_ids), handler is not None, everything).count(True) != 1:
        message = "Give the ids of dead letters, or --handler NAME, or --all: one of the three."
        raise click.UsageError(message)
    with connected(database_url, actor=actor):
        found = letter_ids or [letter.id for letter in Eventic.dead_letters.list(handler, limit=_ANY_NUMBER)]
        if not found:
            click.echo("No dead letters.", err=True)
        elif ask and not letter_ids:
            click.confirm(ask.format(len(found)), abort=True, err=True)
        print_each(found, settle)


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "state": letter.state,
        "handler": letter.handler,
        "class": letter.class_type,
        "record": letter.record_id,
        "version": letter.version,
        "attempts": letter.attempts,
        "failed_at": letter.failed_at,
        "settled_at": letter.settled_at,
        "settled_by": letter.settled_by,
        "error": error_values(letter.error),
    }


def _text(value: Any) -> Any:
    return "{type}: {message}".format(**value) if isinstance(value, dict) else value
