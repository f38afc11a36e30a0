"""Gives a role of Postgres what a process needs at run time, and nothing else.

Owns which statements each kind of process needs. They are granted by whoever owns the tables, after each migration.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import sqlalchemy as sa

from eventic_core.errors import ConfigurationError, Invalid
from eventic_core.store.migrate import explained
from eventic_core.store.sql import statement

_ROLE: Final = re.compile(r"[\w.@ -]{1,63}")
_LOOK: Final = statement("grants_role")


class Grant(StrEnum):
    """What a role is for.

    `READ` is for the doctor, lists and metrics; `WORK` for workers and applications; `OPERATE` also for retention,
    purge and erasure.
    """

    READ = "read"
    WORK = "work"
    OPERATE = "operate"


_STATEMENTS: Final = {
    Grant.READ: ("grants_none", "grants_read"),
    Grant.WORK: ("grants_none", "grants_read", "grants_work"),
    Grant.OPERATE: ("grants_none", "grants_read", "grants_work", "grants_operate"),
}


def grant_script(role: str, what: Grant) -> str:
    """Give the SQL that makes a role have exactly what it is for: what it was granted before is taken away first.

    Raises:
        Invalid: The name of the role holds characters that have no place in one.
    """
    if not _ROLE.fullmatch(role):
        message = f"{role!r} is no name of a role that this can grant to: use letters, digits, spaces and _.@-."
        raise Invalid(message)
    return "".join(f"{statement(name, role=_quoted(role)).strip()}\n" for name in _STATEMENTS[what])


def grant(engine: sa.Engine, role: str, what: Grant) -> None:
    """Make a role have exactly what it is for, in one transaction.

    Args:
        engine: Connects as the owner of the tables.
        role: The name of a role that is there, and owns none of the tables.
        what: What it is for.

    Raises:
        ConfigurationError: There is no such role, it may do everything as it is, or there are no tables yet.
        Invalid: As of `grant_script`.
        StoreUnavailable: Postgres cannot be reached.
    """
    script = grant_script(role, what)
    with explained(engine, "grant"), engine.connect() as connection, connection.begin():
        exists, is_owner, has_tables = connection.execute(sa.text(_LOOK), {"role": role}).one()
        if not has_tables:
            message = "There are no tables to grant anything on yet: run `eventic migrate` first."
            raise ConfigurationError(message)
        if not exists:
            message = f"There is no role {role!r}. Make it first: create role {_quoted(role)} login password '...'."
            raise ConfigurationError(message)
        if is_owner:
            message = (
                f"The role {role!r} is a superuser or owns tables, so it may do everything whatever it is granted. "
                "Grant to another one, and let processes connect as that."
            )
            raise ConfigurationError(message)
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def _quoted(role: str) -> str:
    return f'"{role}"'
