"""Selections that find deleted records too: the current versions, tombstones included.

Made of the same conditions as `queries`; for repositories, which can be asked for what was deleted softly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from eventic_core.records.port import StoredVersion
from eventic_core.records.stamp import Stamp
from eventic_core.store import queries
from eventic_core.store.sql import COLUMNS
from eventic_core.store.tables import records

if TYPE_CHECKING:
    from eventic_core.records.filters import Selection
    from eventic_core.records.port import Transaction
    from eventic_core.store.transaction import PostgresTransaction


def select(selection: Selection, tx: Transaction) -> list[StoredVersion]:
    """Read what a selection finds, in its order, up to its limit."""
    conditions, parameters = _conditions(selection)
    terms = [term for order in selection.orders for term in queries._terms(order)] + [(records.c.id, False)]  # noqa: SLF001
    statement = sa.select(sa.text(COLUMNS)).select_from(records).where(*conditions)
    statement = statement.order_by(*(term.desc() if down else term.asc() for term, down in terms))
    if selection.limit is not None:
        statement = statement.limit(sa.bindparam("limit", None, type_=sa.Integer()))
        parameters["limit"] = selection.limit
    return [
        StoredVersion(row[0], row[1], row[2], row[3], Stamp._make(row[4:])) for row in _run(tx, statement, parameters)
    ]


def count(selection: Selection, tx: Transaction) -> int:
    """Count what a selection finds, whatever its limit."""
    conditions, parameters = _conditions(selection)
    return int(_run(tx, sa.select(sa.func.count()).select_from(records).where(*conditions), parameters)[0][0])


def _conditions(selection: Selection) -> tuple[list[sa.ColumnElement[bool]], dict[str, Any]]:
    values: list[Any] = []
    found = [queries._classes(selection), records.c.superseded_at.is_(None)]  # noqa: SLF001 - one meaning of conditions
    if selection.filter is not None:
        found.append(queries._condition(queries._shape(selection.filter, values)))  # noqa: SLF001
    types = selection.class_types
    parameters: dict[str, Any] = {f"v{number}": value for number, value in enumerate(values)}
    return found, parameters | {"types": list(types) if len(types) != 1 else types[0]}


def _run(tx: Transaction, statement: sa.Select[Any], parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    return cast("PostgresTransaction", tx).fetch(queries._text(statement), parameters)  # noqa: SLF001
