"""What tests of retention share: everything happened long ago, and rules for what is that old."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from conftest import until

from eventic_core.operations.retention import RetentionRule

DAY = 86_400


def rule(what: str, *, of: str | None = None, **values: Any) -> RetentionRule:
    given = {"name": f"{what} {of}", "what": what, "of": of, "older_than_seconds": 30 * DAY, **values}
    return RetentionRule.model_validate(given)


def rows(url: str, sql: str, *parameters: Any) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")  # a test may change the past
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def age(url: str, days: int = 100) -> None:
    """Have everything happen so many days earlier."""
    ms = days * DAY * 1000
    if rows(url, "select to_regclass('dbos.workflow_status')")[0][0] is not None:
        rows(
            url,
            "update dbos.workflow_status set created_at = created_at - %s, updated_at = updated_at - %s, "
            "completed_at = completed_at - %s",
            *[ms] * 3,
        )
    shift = timedelta(days=days)
    rows(
        url,
        "update eventic.records set recorded_at = recorded_at - %s, superseded_at = superseded_at - %s",
        shift,
        shift,
    )


def caught_up(url: str) -> None:
    """Wait until workers have read what their handlers could have missed."""
    until(lambda: not rows(url, "select 1 from eventic.handlers where not caught_up"))


def settle_workflows(url: str) -> None:
    """Wait until no run is unfinished."""
    unfinished = "select 1 from dbos.workflow_status where status in ('ENQUEUED', 'PENDING', 'DELAYED')"
    until(lambda: not rows(url, unfinished))
