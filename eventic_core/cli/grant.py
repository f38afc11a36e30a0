"""`eventic grant`: lets a role of Postgres do what a process needs at run time, and nothing else.

Owns the options; what is granted is in `store.grants`.
"""

from __future__ import annotations

import click

from eventic_core.cli.options import database_option
from eventic_core.errors import ConfigurationError
from eventic_core.settings import EMBEDDED, resolve_database_url
from eventic_core.store.grants import Grant, grant, grant_script
from eventic_core.store.migrate import open_engine


@click.command("grant", short_help="Let a role of Postgres do what processes need, and nothing else.")
@click.argument("role")
@click.option("--operator", is_flag=True, help="Also what retention, purge and erasure need.")
@click.option("--read-only", is_flag=True, help="Only what the doctor, lists and metrics read.")
@click.option("--dry-run", is_flag=True, help="Print the SQL instead of running it; connects to nothing.")
@database_option
def grant_command(role: str, *, operator: bool, read_only: bool, dry_run: bool, database_url: str | None) -> None:
    """Let ROLE do what workers and applications need, and nothing else; what it was granted before is taken away.

    The role must be there, and may own nothing: `create role shop login password '...'`. Run this as the owner of the
    tables, again after each `eventic migrate`, and start processes with EVENTIC_AUTO_MIGRATE=false.
    """
    if operator and read_only:
        message = "--operator and --read-only exclude each other."
        raise click.UsageError(message)
    what = Grant.OPERATE if operator else Grant.READ if read_only else Grant.WORK
    if dry_run:
        click.echo(grant_script(role, what), nl=False)
        return
    url, _ = resolve_database_url(database_url)
    if url is None or url == EMBEDDED:
        message = "Name the database with --database-url or EVENTIC_DATABASE_URL; the embedded one has one user."
        raise ConfigurationError(message)
    with open_engine(url) as engine:
        grant(engine, role, what)
    click.echo(f"{role} may {what} now.", err=True)
