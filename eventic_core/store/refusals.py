"""Why Postgres refused a write, as the errors that users know."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg import errors as pg

from eventic_core.errors import DuplicateKey, InvalidRecord, RecordExists
from eventic_core.records.port import StaleWrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

UNSTORABLE = (pg.DataError, pg.ProgramLimitExceeded, pg.StatementTooComplex)
"""What `unstorable` explains."""


def taken(error: pg.UniqueViolation, created: Sequence[str]) -> Exception:
    """Say which unique constraint refused a write: a key, an id, or a version somebody else wrote."""
    detail = error.diag.message_detail or ""
    if error.diag.constraint_name == "record_keys_value_key":
        match = re.match(r"Key \(scope, name, value\)=\((.*?), (.*?), (.*)\) already exists", detail)
        scope, name, value = match.groups() if match else ("a class", "of fields", detail)
        return DuplicateKey(f"{scope}: the unique key {name}={value} is held by another record. Nothing was stored.")
    if error.diag.constraint_name == "records_items":
        found = re.search(r"=\((.*)\) already exists", detail)
        value = found[1] if found else "..."
        return DuplicateKey(f"Item: batch_id,sequence_number={value} is that of another item. Nothing was stored.")
    if not created:
        return StaleWrite()
    match = re.search(r"=\(([0-9a-f-]{36})", detail)
    name = created[0]
    return RecordExists(
        f"{name}(id={match[1] if match else '...'}) is stored already; id= is for new records. "
        f"Change it through {name}.hydrate(id) or {name}.apply(body). Nothing was stored."
    )


def unstorable(error: psycopg.Error) -> InvalidRecord:
    """Say that a value cannot be stored, in Postgres' own words; they do not show it."""
    return InvalidRecord(f"Postgres cannot store the values: {error.diag.message_primary}. Nothing was stored.")
