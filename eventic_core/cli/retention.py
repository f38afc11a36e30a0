"""`eventic retention`: rules of what is kept for how long, what they would remove, and their application.

Owns the options and what is printed; what the commands do is in `operations.retention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, app_option, database_option, json_option
from eventic_core.cli.output import print_columns, print_json
from eventic_core.operations.retention import BATCH_ROWS, What, apply, drop_rule, parse_age, plan, rules, set_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.operations.retention import Planned, RetentionRule

names_argument = click.argument("names", metavar="[RULE]...", nargs=-1)
reason_option = click.option("--reason", metavar="TEXT", help="Why, noted with the act.")


@click.group()
def retention() -> None:
    """Keep what is over for as long as rules say, and remove it then.

    What something unfinished needs stays, whatever a rule says: a run that an unfinished one waits for, named or
    started, versions that a run may still ask for or a handler has not handled.
    """


@retention.group("rule")
def rule_group() -> None:
    """Set, list and drop rules. Nothing is removed before they are applied."""


@rule_group.command("set", short_help="Make a rule, or change the one of the name.")
@click.argument("name")
@click.option(
    "--remove",
    "what",
    type=click.Choice([str(what) for what in What]),
    required=True,
    help="Ended runs of workflows, ended runs of automations and DAGs, past versions, or deleted records.",
)
@click.option("--of", metavar="NAME", help="Only of this workflow, automation, DAG or record class.")
@click.option("--status", "statuses", metavar="STATUS", multiple=True, help="Only runs that ended so; may be repeated.")
@click.option("--older-than", metavar="AGE", required=True, help="A number and s, m, h, d, w or y, as 30d.")
@reason_option
@actor_option
@database_option
def set_command(name: str, older_than: str, database_url: str | None, actor: str | None, **values: Any) -> None:
    """Make a rule, or change the one of the name, and print it."""
    with connected(database_url, actor=actor):
        _print_rules([set_rule(name, older_than_seconds=parse_age(older_than), **values)])


@rule_group.command("list")
@json_option
@database_option
def list_command(database_url: str | None, *, as_json: bool) -> None:
    """List the rules."""
    with connected(database_url):
        found = rules()
    if not found:
        click.echo("No rules.", err=True)
    elif as_json:
        print_json(_row(rule) for rule in found)
    else:
        _print_rules(found)


@rule_group.command("drop")
@click.argument("name")
@reason_option
@actor_option
@database_option
def drop_command(name: str, reason: str | None, actor: str | None, database_url: str | None) -> None:
    """Drop a rule; what it removed stays removed."""
    with connected(database_url, actor=actor):
        drop_rule(name, reason=reason)
    print_columns((), [(name, "dropped")])


@retention.command("plan")
@names_argument
@json_option
@app_option
@database_option
def plan_command(names: Sequence[str], app: str | None, database_url: str | None, *, as_json: bool) -> None:
    """Say how much each rule would remove now, or those named: exactly below 10,000. Removes nothing."""
    with connected(database_url, app):
        found = plan(rules(names))
    if as_json:
        print_json(
            {**_row(one.rule), "count": one.count, "is_more": one.is_more, "held_by": one.held_by} for one in found
        )
    elif not found:
        click.echo("No rules. Make one with `eventic retention rule set`.", err=True)
    else:
        print_columns(
            ("rule", "removes", "would_remove"), ((one.rule.name, one.rule.what, _text(one)) for one in found)
        )


@retention.command("apply")
@names_argument
@click.option("--batch", type=click.IntRange(min=1), default=BATCH_ROWS, show_default=True, help="Rows a transaction.")
@click.option("--request-key", metavar="KEY", help="Asking twice with one key does it once, or goes on with it.")
@reason_option
@actor_option
@app_option
@database_option
def apply_command(
    names: Sequence[str],
    *,
    batch: int,
    request_key: str | None,
    reason: str | None,
    actor: str | None,
    app: str | None,
    database_url: str | None,
) -> None:
    """Remove what the rules say, or those named, in batches, and print how much that was.

    Made to be called regularly, by cron or a timer. It may be ended at any moment, and called while another one works.
    """
    with connected(database_url, app, actor=actor):
        chosen = rules(names)
        for rule in chosen:
            key = None if request_key is None else f"{request_key}:{rule.name}"
            done = apply(rule, batch_rows=batch, reason=reason, request_key=key)
            print_columns((), [(rule.name, f"removed {done.count} ({done.rows} rows)")])
    if not chosen:
        click.echo("No rules. Make one with `eventic retention rule set`.", err=True)


def _text(one: Planned) -> str:
    count = f"{one.count:,}" + (" or more" if one.is_more else "")
    return count if one.held_by is None else f"{count}; versions since unfinished run {one.held_by} began are kept"


def _row(rule: RetentionRule) -> dict[str, Any]:
    return {
        "rule": rule.name,
        "removes": str(rule.what),
        "of": rule.of,
        "statuses": list(rule.statuses),
        "older_than_seconds": rule.older_than_seconds,
        "version": rule.version,
        "actor": rule.stamp.actor,
    }


def _print_rules(found: Sequence[RetentionRule]) -> None:
    rows = [{**_row(rule), "statuses": ",".join(rule.statuses) or None} for rule in found]
    print_columns([*rows[0]], ([*row.values()] for row in rows))
