"""What people write of runs of DAGs on the command line, read: a run's id, parameters, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from eventic_core.errors import Invalid, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.jobs.dag_run import DagRun

run_argument: Final = click.argument("run_id", metavar="RUN")
watch_option: Final = click.option(
    "--watch", "watched", is_flag=True, help="Watch it to its end, as `eventic dag watch`."
)


def find_dag_run(run_id: str) -> DagRun:
    """Read a run by its id.

    Raises:
        RunNotFound: There is no such run, or this is no id.
    """
    from eventic_core.jobs.dag_run import DagRun

    found = DagRun.where(DagRun.fields.id == UUID(run_id)).all() if is_id(run_id) else []
    if not found:
        message = f"There is no run {run_id!r} of a DAG."
        raise RunNotFound(message)
    return found[0]


def is_id(text: str) -> bool:
    """Tell whether a text has the form of an id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def read_json(text: str) -> Any:
    """Read a value that is JSON.

    Raises:
        Invalid: It is none.
    """
    from pydantic_core import from_json

    try:
        return from_json(text)
    except ValueError as error:
        message = f"{text!r} is no JSON: {error}. Write a text in quotes: --result '\"text\"'."
        raise Invalid(message) from error


def read_parameters(parameters: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE`s; a value is JSON, or else text.

    Raises:
        Invalid: One has another form.
    """
    from pydantic_core import from_json

    found: dict[str, Any] = {}
    for parameter in parameters:
        name, sign, text = parameter.partition("=")
        if not sign or not name.isidentifier():
            message = f"{parameter!r} is no parameter: write NAME=VALUE."
            raise Invalid(message)
        try:
            found[name] = from_json(text)
        except ValueError:
            found[name] = text
    return found
