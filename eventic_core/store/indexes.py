"""Builds the search indexes that record classes declare, without blocking writers.

Owns their names and their SQL. They are no part of the migrations, because the classes belong to the user.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa
from psycopg import sql

from eventic_core.store.migrate import INDEX_PREFIX, advisory_lock, explained
from eventic_core.store.tables import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX_LOCK: Final = 0x657665_6E74_6978
"""The advisory lock of all index builds: Postgres builds one at a time on a table, and two that wait deadlock."""

_NAME_BYTES: Final = 63

# Purpose: `where` and `order_by` on one field of one class's current, undeleted records.
# Locks: SHARE UPDATE EXCLUSIVE on records, so reads and writes go on; waits for transactions that are open.
_CREATE: Final = """
create index concurrently if not exists {name} on {schema}.records ({expression})
    where superseded_at is null and not tombstone and class_type = {class_type}
"""
_EXPRESSIONS: Final = {"json": "(data->{field})", "text": """(data->>{field}) collate "C\""""}

# Purpose: whether the index exists, is usable and is of the kind asked for. Locks: none.
_STATE: Final = """
select i.indisvalid and i.indisready as valid, pg_get_indexdef(i.indexrelid) as definition
from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = :schema and c.relname = :name
"""


def index_name(class_type: str, field: str) -> str:
    """Name the search index of a field: `records_ix_<class_type>_<field>`, at most 63 bytes.

    A hash ends the name where it would be too long, or ambiguous because the class has an underscore in its name.
    """
    name = f"{INDEX_PREFIX}{class_type}_{field}"
    if len(name.encode()) <= _NAME_BYTES and "_" not in class_type:
        return name
    ending = "_" + hashlib.sha256(json.dumps([class_type, field]).encode()).hexdigest()[:8]
    return name.encode()[: _NAME_BYTES - len(ending)].decode(errors="ignore") + ending


def create_index(engine: sa.Engine, class_type: str, field: str, kind: Literal["json", "text"] = "json") -> bool:
    """Build the search index of a field, unless it is there; writers are not blocked.

    What an interrupted build left behind, or an index of the other kind, is dropped and built anew. Waits for a build
    of another process. Not in a transaction: a failure leaves an invalid index that the next call replaces.

    Args:
        engine: Connects as a user who owns the table.
        class_type: The stored name of the class; subclasses have indexes of their own.
        field: A field of its JSON.
        kind: `json` indexes `data->'field'`, `text` indexes `data->>'field'` in collation "C".

    Returns:
        Whether it was built now.

    Raises:
        ConfigurationError: Postgres refused the build.
        StoreUnavailable: Postgres cannot be reached.
    """
    name = index_name(class_type, field)
    with explained(engine, "index build"), _unhurried(engine) as connection:
        if _is_usable(connection, name, kind):
            return False
        with advisory_lock(connection, INDEX_LOCK):
            if _is_usable(connection, name, kind):
                return False
            _run(connection, sql.SQL("drop index concurrently if exists {}.{}").format(*_names(SCHEMA, name)))
            expression = sql.SQL(_EXPRESSIONS[kind]).format(field=sql.Literal(field))
            create = sql.SQL(_CREATE).format(
                name=sql.Identifier(name),
                schema=sql.Identifier(SCHEMA),
                expression=expression,
                class_type=sql.Literal(class_type),
            )
            _run(connection, create)
    return True


@contextmanager
def _unhurried(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection outside transactions, where a long build is not cut off."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("set statement_timeout = 0")
        try:
            yield connection
        finally:
            if not connection.invalidated:
                connection.exec_driver_sql("reset statement_timeout")


def _is_usable(connection: sa.Connection, name: str, kind: str) -> bool:
    row = connection.execute(sa.text(_STATE), {"schema": SCHEMA, "name": name}).one_or_none()
    return row is not None and row.valid and ("(data ->> " in row.definition) == (kind == "text")


def _run(connection: sa.Connection, statement: sql.Composable) -> None:
    # Without this option a % in a name would be read as a placeholder.
    connection.exec_driver_sql(statement.as_string(), execution_options={"no_parameters": True})


def _names(*names: str) -> list[sql.Identifier]:
    return [sql.Identifier(name) for name in names]
