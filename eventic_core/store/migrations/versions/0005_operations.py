"""What operators see and steer: the workers that are alive, and the queues that are paused.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
Everything here is beside what was there: workers of the release before go on with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = "eventic"


def upgrade() -> None:
    """Add the tables."""
    _create_workers()
    op.create_table(
        "paused_queues",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("paused_at", _moment(), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("paused_by", sa.Text()),
        sa.Column("reason", sa.Text()),
        schema=SCHEMA,
        comment="queues of which nothing is claimed",
    )


def downgrade() -> None:
    """Drop them, with their data."""
    op.drop_table("paused_queues", schema=SCHEMA)
    op.drop_table("workers", schema=SCHEMA)


def _moment() -> sa.TIMESTAMP:
    return sa.TIMESTAMP(timezone=True)


def _create_workers() -> None:
    text, count = sa.Text(), sa.Integer()
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("slot", text, nullable=False),
        sa.Column("token", text, nullable=False, comment="in the application_name of all its sessions"),
        sa.Column("application", text, nullable=False),
        sa.Column("app_version", text, nullable=False),
        sa.Column("code_version", text, nullable=False, comment="of eventic_core"),
        sa.Column("machine", text, nullable=False),
        sa.Column("pid", count, nullable=False),
        sa.Column("queues", ARRAY(text), nullable=False, comment="that it serves"),
        sa.Column("running", count, nullable=False, server_default="0", comment="pieces of work"),
        sa.Column("claimed", count, nullable=False, server_default="0", comment="pieces it has not begun"),
        sa.Column("state", text, nullable=False, comment="alive, draining, stopped or lost"),
        sa.Column("drain_asked_at", _moment()),
        sa.Column("recovered", count, nullable=False, server_default="0", comment="runs taken over from it"),
        sa.Column("started_at", _moment(), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("beat_at", _moment(), nullable=False, server_default=sa.text("clock_timestamp()")),
        schema=SCHEMA,
        comment="processes that work, by the server's clock; those that ended are kept for a while",
    )
    op.create_index(
        "workers_slot",
        "workers",
        ["slot"],
        unique=True,
        postgresql_where=sa.text("state in ('alive', 'draining')"),
        schema=SCHEMA,
    )
    op.execute(f"alter table {SCHEMA}.workers set (fillfactor = 20)")
