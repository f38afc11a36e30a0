"""The versions of records, their unique keys and the schema versions ever written.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "eventic"

# Purpose: a committed version never changes and is never lost.
# An update that only sets superseded_at, the hot path, runs no function: UPDATE OF looks at the columns a statement
# names, and WHEN is an expression. A column added later must be added to the list.
# No percent sign: the offline script would double it.
# Retention, erasure and purge say `set local eventic.retention = 'on'` in their transaction.
GUARD = f"""
create function {SCHEMA}.records_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        raise exception using errcode = 'restrict_violation', schema = 'eventic', table = 'records',
            message = 'eventic.records is immutable: version ' || old.version || ' of record ' || old.id
                || ' cannot be changed',
            hint = 'Only superseded_at may be set, once. Write a new version instead.';
    end if;
    raise exception using errcode = 'restrict_violation', schema = 'eventic', table = 'records',
        message = 'eventic.records is immutable: ' || lower(tg_op) || ' is refused',
        hint = 'Retention runs with: set local eventic.retention = ''on''.';
end $$;

create trigger records_immutable before update of version_id, id, version, class_type, data, tombstone, schema_version,
    actor, reason, correlation_id, workflow_id, step_id, recorded_at, xid, "position"
    on {SCHEMA}.records for each row execute function {SCHEMA}.records_guard();

create trigger records_superseded_once before update on {SCHEMA}.records for each row
    when (old.superseded_at is not null or new.superseded_at is null)
    execute function {SCHEMA}.records_guard();

create trigger records_kept before delete or truncate on {SCHEMA}.records for each statement
    when (current_setting('eventic.retention', true) is distinct from 'on')
    execute function {SCHEMA}.records_guard()"""


class TransactionId(UserDefinedType[int]):
    """Postgres' 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Give the name of the type."""
        return "xid8"


def upgrade() -> None:
    """Create the tables and what keeps versions immutable."""
    _create_records()
    _create_indexes()
    op.create_table(
        "record_keys",
        sa.Column("record_id", sa.Uuid(), primary_key=True),
        sa.Column("scope", sa.Text(), primary_key=True, comment="the class that declares the key"),
        sa.Column("name", sa.Text(), primary_key=True, comment="its field, or fields joined by a comma"),
        sa.Column("value", sa.Text(), nullable=False, comment="the JSON of the value, or of the list of values"),
        sa.UniqueConstraint("scope", "name", "value", name="record_keys_value_key"),
        schema=SCHEMA,
        comment="the unique keys of the current, undeleted records",
    )
    op.create_table(
        "record_classes",
        sa.Column("class_type", sa.Text(), primary_key=True),
        sa.Column("schema_version", sa.Integer(), primary_key=True, autoincrement=False),
        schema=SCHEMA,
        comment="every schema version that was ever written, for the start-up check",
    )
    op.execute(GUARD)


def downgrade() -> None:
    """Drop the tables with all data."""
    op.drop_table("record_classes", schema=SCHEMA)
    op.drop_table("record_keys", schema=SCHEMA)
    op.drop_table("records", schema=SCHEMA)
    op.execute(f"drop function {SCHEMA}.records_guard()")


def _create_records() -> None:
    moment = sa.TIMESTAMP(timezone=True)
    op.create_table(
        "records",
        sa.Column("version_id", sa.Uuid(), primary_key=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("class_type", sa.Text(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        sa.Column("tombstone", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("schema_version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("actor", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("correlation_id", sa.Text()),
        sa.Column("workflow_id", sa.Text()),
        sa.Column("step_id", sa.Integer()),
        sa.Column("recorded_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("superseded_at", moment, comment="null while current"),
        sa.Column(
            "xid",
            TransactionId(),
            nullable=False,
            server_default=sa.text("pg_current_xact_id()"),
            comment="the writing transaction, or that of the previous version where it is later",
        ),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.UniqueConstraint("id", "version", name="records_id_version_key"),
        sa.CheckConstraint("version >= 0", name="records_version_check"),
        sa.CheckConstraint("superseded_at > recorded_at", name="records_superseded_check"),
        schema=SCHEMA,
        comment="one immutable row per version of a record",
    )


def _create_indexes() -> None:
    current = sa.text("superseded_at is null")
    live = sa.text("superseded_at is null and not tombstone")
    op.create_index("records_current_key", "records", ["id"], schema=SCHEMA, unique=True, postgresql_where=current)
    op.create_index("records_class_current", "records", ["class_type", "id"], schema=SCHEMA, postgresql_where=live)
    op.create_index(
        "records_data_current",
        "records",
        ["data"],
        schema=SCHEMA,
        postgresql_using="gin",
        postgresql_ops={"data": "jsonb_path_ops"},
        postgresql_where=live,
    )
    op.create_index("records_feed", "records", ["xid", "position"], schema=SCHEMA)
    op.create_index(
        "records_workflow",
        "records",
        ["workflow_id", "step_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("workflow_id is not null"),
    )
