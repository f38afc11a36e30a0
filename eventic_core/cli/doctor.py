"""`eventic doctor`: one look at a system, what is well with it, what is not, and what to do about each.

Owns the options and what is printed; what is looked at and how it is judged is in `runtime.doctor`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from eventic_core.cli.application import load
from eventic_core.cli.options import app_option, database_option, json_option
from eventic_core.cli.output import print_json, print_text
from eventic_core.runtime.doctor import examine
from eventic_core.runtime.findings import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventic_core.runtime.findings import Finding


@click.command()
@database_option
@app_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, database_url: str | None, app: str | None, *, as_json: bool) -> None:
    """Look at a system once: the database, the workers, the work that waits, and what stands in its way.

    Changes nothing, and is quick whatever the tables hold. Ends with 0 if there is no problem, warnings or not, with 1
    if there is one, and with 3 if the database cannot be reached. docs/operations.md says what each check means.
    """
    with _database(database_url, app) as url:
        examination = examine(url, target=app)
    if as_json:
        print_json(asdict(finding) for finding in examination.findings)
    else:
        _print(examination.findings)
    ctx.exit(examination.exit_code)


@contextmanager
def _database(argument: str | None, app: str | None) -> Iterator[str]:
    """Give the URL of the database, whatever state its tables are in; an embedded server runs as long as the block."""
    from eventic_core.app import Eventic
    from eventic_core.settings import Settings
    from eventic_core.store import database_url

    declared = {}
    if app is not None:
        load(app)
        declared = Eventic._declared or {}  # noqa: SLF001 - the command line is the facade's other half
        if not declared and Eventic._store is not None:  # noqa: SLF001
            declared = {"database_url": Eventic.settings().database_url}
    settings = Settings(**({**declared, "database_url": argument} if argument is not None else declared))
    try:
        yield database_url(settings)[0]
    finally:
        Eventic.shutdown()


def _print(findings: tuple[Finding, ...]) -> None:
    """Print a line for each finding, and under what is not well what to do."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        status = finding.status.value.upper() if finding.status is Status.PROBLEM else finding.status.value
        print_text([f"{status:<7}  {finding.check:<{width}}  {finding.found}"])
        if finding.remedy is not None:
            print_text([f"{'':<7}  {'':<{width}}  -> {finding.remedy}"])
    counts = [sum(finding.status is status for finding in findings) for status in Status]
    click.echo("{} ok, {} warnings, {} problems.".format(*counts), err=True)
