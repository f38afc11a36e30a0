"""`eventic version`: what to write into a bug report; reads the installed metadata only and connects to nothing."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import click

PACKAGES = ("eventic-core", "dbos", "sqlalchemy", "psycopg", "pydantic", "fastapi", "alembic")


@click.command()
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="The format.")
def version(output: str) -> None:
    """Print the versions of the package and what it stands on."""
    found = {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}
    if output == "json":
        click.echo(json.dumps(found))
        return
    for name, number in found.items():
        click.echo(f"{name} {number or 'not installed'}")


def _version(name: str) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None
