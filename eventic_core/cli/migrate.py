"""`eventic migrate`: brings the tables up or down, prints the SQL instead, and builds declared search indexes.

Owns the options; what they do is in `eventic_core.store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import click

from eventic_core.cli.application import load
from eventic_core.errors import ConfigurationError
from eventic_core.settings import EMBEDDED, URL_PLACES, Settings, resolve_database_url, safe_url
from eventic_core.store.embedded import start_embedded
from eventic_core.store.indexes import create_index
from eventic_core.store.migrate import current_revision, downgrade, open_engine, sql_script, upgrade

_Command = TypeVar("_Command", bound=Callable[..., Any])

DeclaredIndex = tuple[str, str, Literal["json", "text"]]
"""The stored name of a record class, a field of it, and how the field is compared."""


def _connection_options(command: _Command) -> _Command:
    places = ", ".join(URL_PLACES[1:])
    command = click.option("--sql", is_flag=True, help="Print the SQL instead of running it; connects to nothing.")(
        command
    )
    return click.option("--database-url", metavar="URL", help=f"The database; else the first of {places}.")(command)


_app_option = click.option(
    "--app", metavar="MODULE", envvar="EVENTIC_APP", help="Import MODULE, and build the indexes its records declare."
)


@click.group(invoke_without_command=True)
@_connection_options
@_app_option
@click.pass_context
def migrate(ctx: click.Context, database_url: str | None, app: str | None, *, sql: bool) -> None:
    """Bring the tables in schema eventic, and DBOS's in schema dbos, up to date; without a command the same as `up`.

    DBOS's are touched only on the way up to the newest revision. Safe to run from many processes at once and beside
    migrations of your own: the revision is kept in eventic.eventic_version.
    """
    if ctx.invoked_subcommand is None:
        _up(database_url, "head", app, sql=sql)
    else:
        ctx.obj = {"database_url": database_url, "app": app, "sql": sql}


@migrate.command(short_help="Bring the tables up to REVISION, or to the newest.")
@click.argument("revision", default="head")
@_connection_options
@_app_option
@click.pass_obj
def up(given: dict[str, Any], revision: str, database_url: str | None, app: str | None, *, sql: bool) -> None:
    """Bring the tables up to REVISION, by default the one the code needs."""
    _up(database_url or given["database_url"], revision, app or given["app"], sql=sql or given["sql"])


@migrate.command(short_help="Bring the tables down to REVISION, or drop them all.")
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_connection_options
@click.pass_obj
def down(given: dict[str, Any], revision: str, database_url: str | None, *, sql: bool, yes: bool) -> None:
    """Bring the tables down to REVISION; `base` drops them with all records."""
    offline = sql or given["sql"]
    with _target(database_url or given["database_url"], offline=offline) as url:
        if offline:
            click.echo(sql_script(url, revision, down=True), nl=False)
            return
        if not yes:
            question = f"Drop what is newer than {revision} from {safe_url(url)}, data included?"
            click.confirm(question, abort=True, err=True)
        with open_engine(url) as engine:
            downgrade(engine, revision)
        click.echo(f"{safe_url(url)} is down at revision {revision}.", err=True)


def _up(database_url: str | None, revision: str, app: str | None, *, sql: bool) -> None:
    with _target(database_url, offline=sql) as url:
        if sql:
            click.echo(sql_script(url, revision), nl=False)
        else:
            _upgrade(url, revision, declared_indexes(app) if app else ())


def _upgrade(url: str, revision: str, indexes: Iterable[DeclaredIndex]) -> None:
    with open_engine(url) as engine:
        upgrade(engine, revision)
        if revision == "head":
            from eventic_core.runtime import adapter

            adapter.migrate(url)  # a role that may not make tables can then do everything else
        with engine.connect() as connection:
            click.echo(f"{safe_url(url)} is at revision {current_revision(connection)}.", err=True)
        for class_type, field, kind in indexes:
            if create_index(engine, class_type, field, kind):
                click.echo(f"Built the index of {class_type}.{field}.", err=True)


def declared_indexes(app: str) -> Iterable[DeclaredIndex]:
    """Import the module of an application and list the search indexes of every record class known then.

    Args:
        app: `package.module`, found from the working directory too; an `:attribute` is ignored.

    Raises:
        ConfigurationError: The module cannot be imported.
    """
    load(app.partition(":")[0])
    from eventic_core import records

    return list(records.declared_indexes())


@contextmanager
def _target(argument: str | None, *, offline: bool = False) -> Iterator[str]:
    """Give the URL of the database; an embedded server runs as long as the block, unless nobody connects."""
    url, _ = resolve_database_url(argument)
    if url is None:
        message = f"There is no database to migrate. Looked for a URL in: {', '.join(URL_PLACES)} (--database-url)."
        raise ConfigurationError(message)
    if url != EMBEDDED:
        yield url
    elif offline:
        yield "postgresql://embedded"
    else:
        server = start_embedded(Settings(database_url=EMBEDDED).embedded_directory)
        try:
            yield server.url
        finally:
            server.release()
