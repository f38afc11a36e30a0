"""`eventic purge`: deleted records removed for good. Owns the options and what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from eventic_core.cli.application import connected
from eventic_core.cli.options import actor_option, app_option, database_option
from eventic_core.cli.output import print_columns
from eventic_core.operations.purge import plan_purge
from eventic_core.operations.purge import purge as purge_records
from eventic_core.operations.retention import BOUND, parse_age

if TYPE_CHECKING:
    from uuid import UUID


@click.command()
@click.argument("class_type", metavar="[CLASS]", required=False)
@click.option("--id", "record_id", type=click.UUID, help="One record, instead of a class.")
@click.option("--older-than", metavar="AGE", help="Only those deleted so long ago, as 30d.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", metavar="TEXT", help="Why, noted with the act.")
@actor_option
@app_option
@database_option
def purge(
    class_type: str | None,
    *,
    record_id: UUID | None,
    older_than: str | None,
    reason: str | None,
    actor: str | None,
    app: str | None,
    database_url: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove deleted records of a class, or one, with all their versions. They cannot be restored then."""
    seconds = 0 if older_than is None else parse_age(older_than)
    with connected(database_url, app, actor=actor):
        count = plan_purge(class_type, older_than_seconds=seconds, record_id=record_id)
        shown = f"{min(count, BOUND):,}" + (" or more" if count > BOUND else "")
        if dry_run or not count:
            print_columns((), [(record_id or class_type, f"would remove {shown}")])
            return
        if not yes:
            click.confirm(f"Remove {shown} for good?", abort=True, err=True)
        count = purge_records(class_type, older_than_seconds=seconds, record_id=record_id, reason=reason)
    print_columns((), [(record_id or class_type, f"removed {count:,}")])
