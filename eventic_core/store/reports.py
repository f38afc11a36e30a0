"""What came of a run's items: counted, grouped and streamed from the current versions of their executions.

Owns the statements and their rows. What they mean is said in `automation.report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from eventic_core.store.sql import statement
from eventic_core.store.transaction import PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store.engine import Database

SAMPLES: Final = 5
_COUNTS: Final = statement("report_counts")
_ERRORS: Final = statement("report_errors", samples=str(SAMPLES))
_RESULTS_OF_ONE: Final = statement("report_results", matches="= %s")
_RESULTS_OF_MANY: Final = statement("report_results", matches="= any(%s)")
_STREAM_ROWS: Final = 100
"""Results of a fetch: each may be as large as a record."""


class ItemCount(NamedTuple):
    """How many items have a status after so many attempts, and when the first began and the last ended."""

    status: str
    attempt_count: int
    items: int
    started_at: datetime | None
    finished_at: datetime | None


class ErrorRow(NamedTuple):
    """Errors of one class whose messages are alike, and how many such groups there are."""

    error_type: str | None
    message: str | None
    items: int
    first_number: int | None
    last_number: int | None
    sample_numbers: list[int] | None
    groups: int


class ResultRow(NamedTuple):
    """One item; `result` is JSON text."""

    number: int | None
    item_id: str
    status: str
    attempt_count: int
    result: str | None
    error: str | None


class Reports:
    """Reads what came of a run's items; in a transaction, or in one statement of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self, run_id: UUID, tx: PostgresTransaction | None = None) -> list[ItemCount]:
        """Count a run's items."""
        return [ItemCount._make(row) for row in self._rows(_COUNTS, (str(run_id),), tx)]

    def errors(
        self, run_id: UUID, statuses: Sequence[str], limit: int, tx: PostgresTransaction | None = None
    ) -> list[ErrorRow]:
        """Group the errors of a run's items in these states, the most frequent first."""
        rows = self._rows(_ERRORS, (str(run_id), list(statuses), limit), tx)
        return [ErrorRow._make(row) for row in rows]

    def results(
        self, run_id: UUID, statuses: Sequence[str], tx: PostgresTransaction | None = None
    ) -> Iterator[ResultRow]:
        """Stream a run's items in these states by number; holds a transaction open until the end or `close`."""
        sql = _RESULTS_OF_ONE if len(statuses) == 1 else _RESULTS_OF_MANY
        parameters = (str(run_id), statuses[0] if len(statuses) == 1 else list(statuses))
        transaction = tx or PostgresTransaction.begin(self._database)
        try:
            with transaction.driver.cursor(f"eventic_results_{id(parameters):x}") as cursor:
                cursor.itersize = _STREAM_ROWS
                transaction.run(lambda: cursor.execute(sql, parameters))
                for row in cursor:
                    yield ResultRow._make(row)
        except psycopg.OperationalError as error:
            raise self._database.unavailable(error) from error
        finally:
            if tx is None:
                transaction.rollback()

    def _rows(self, sql: str, parameters: tuple[Any, ...], tx: PostgresTransaction | None) -> list[tuple[Any, ...]]:
        return self._database.fetch(sql, parameters) if tx is None else tx.fetch(sql, parameters)
