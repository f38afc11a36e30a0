"""Retention and erasure: since when the past of a class is whole, and the one way to overwrite values of a version.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
Workers of the release before go on with it: what they write is guarded as it was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "eventic"
FIXED = (
    "version_id, id, version, class_type, tombstone, schema_version, actor, reason, correlation_id, workflow_id, "
    'step_id, recorded_at, xid, "position", calls'
)
ERASED = "current_setting('eventic.erasure', true) is not distinct from old.id::text"

# Purpose: only the data of one record, the one whose id the transaction names with
# `set local eventic.erasure = '<id>'`, may be overwritten, and nothing else of its versions with it.
# The hot path, an update that only sets superseded_at once, runs no function and reads no setting as before.
OPENED = f"""
drop trigger records_immutable on {SCHEMA}.records;
create trigger records_immutable before update of {FIXED}
    on {SCHEMA}.records for each row execute function {SCHEMA}.records_guard();

create trigger records_data_immutable before update of data on {SCHEMA}.records for each row
    when (not ({ERASED} and new.superseded_at is not distinct from old.superseded_at))
    execute function {SCHEMA}.records_guard();

drop trigger records_superseded_once on {SCHEMA}.records;
create trigger records_superseded_once before update on {SCHEMA}.records for each row
    when ((old.superseded_at is not null or new.superseded_at is null)
          and not ({ERASED} and new.superseded_at is not distinct from old.superseded_at))
    execute function {SCHEMA}.records_guard()"""

CLOSED = f"""
drop trigger records_data_immutable on {SCHEMA}.records;

drop trigger records_immutable on {SCHEMA}.records;
create trigger records_immutable before update of data, {FIXED}
    on {SCHEMA}.records for each row execute function {SCHEMA}.records_guard();

drop trigger records_superseded_once on {SCHEMA}.records;
create trigger records_superseded_once before update on {SCHEMA}.records for each row
    when (old.superseded_at is not null or new.superseded_at is null)
    execute function {SCHEMA}.records_guard()"""


def upgrade() -> None:
    """Add the table, and open the guard for an erasure."""
    op.create_table(
        "history_floors",
        sa.Column("class_type", sa.Text(), primary_key=True),
        sa.Column(
            "since",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            comment="as of earlier moments versions are missing, for they were removed",
        ),
        schema=SCHEMA,
        comment="how far back the past of each class is whole, where past versions were removed",
    )
    op.execute(OPENED)


def downgrade() -> None:
    """Drop the table, and close the guard."""
    op.execute(CLOSED)
    op.drop_table("history_floors", schema=SCHEMA)
