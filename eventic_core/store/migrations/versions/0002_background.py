"""Background work: which handlers subscribe to what, how far each came with each record, and what was set aside.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "eventic"
FIXED = (
    "version_id, id, version, class_type, data, tombstone, schema_version, actor, reason, correlation_id, workflow_id, "
    'step_id, recorded_at, xid, "position"'
)


class TransactionId(UserDefinedType[int]):
    """Postgres' 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Give the name of the type."""
        return "xid8"


def _guard(columns: str) -> str:
    return f"""
drop trigger records_immutable on {SCHEMA}.records;
create trigger records_immutable before update of {columns}
    on {SCHEMA}.records for each row execute function {SCHEMA}.records_guard()"""


def upgrade() -> None:
    """Add the column and the tables."""
    op.add_column(
        "records",
        sa.Column("calls", sa.Text(), comment="the evented methods whose call made it, joined by commas"),
        schema=SCHEMA,
    )
    op.execute(_guard(f"{FIXED}, calls"))
    moment = sa.TIMESTAMP(timezone=True)
    op.create_table(
        "handlers",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("class_type", sa.Text(), primary_key=True),
        sa.Column("kind", sa.Text(), primary_key=True, comment="create, update, delete or call"),
        sa.Column("method", sa.Text(), primary_key=True, server_default="", comment="of kind call"),
        sa.Column("since_xid", TransactionId(), nullable=False, comment="handles versions from here on in the feed"),
        sa.Column("caught_up", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("created_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        schema=SCHEMA,
        comment="what each handler subscribes to; a writer enqueues work for them",
    )
    op.create_table(
        "handlers_generation",
        sa.Column("generation", sa.BigInteger(), primary_key=True, autoincrement=False),
        schema=SCHEMA,
        comment="one row; moves with every change of handlers, so that no writer goes by an old list",
    )
    op.execute(f"insert into {SCHEMA}.handlers_generation values (1)")
    op.create_table(
        "handled",
        sa.Column("handler", sa.Text(), primary_key=True),
        sa.Column("record_id", sa.Uuid(), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False, comment="the last one handled or set aside; -1 is none"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0", comment="at the version after it"),
        sa.Column("due_at", moment, comment="when the next attempt is due"),
        schema=SCHEMA,
        comment="how far each handler came with each record",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("class_type", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", JSONB(), nullable=False),
        sa.Column("failed_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column(
            "state", sa.Text(), nullable=False, server_default="open", comment="open, retried, done or discarded"
        ),
        sa.Column("settled_at", moment),
        sa.Column("settled_by", sa.Text()),
        schema=SCHEMA,
        comment="versions a handler gave up on",
    )
    op.create_index(
        "dead_letters_open",
        "dead_letters",
        ["failed_at", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("state in ('open', 'retried')"),
    )


def downgrade() -> None:
    """Drop what `upgrade` added, with its data."""
    for table in ("dead_letters", "handled", "handlers_generation", "handlers"):
        op.drop_table(table, schema=SCHEMA)
    op.execute(_guard(FIXED))
    op.drop_column("records", "calls", schema=SCHEMA)
