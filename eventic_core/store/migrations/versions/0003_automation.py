"""Runs over batches: their counters and failures, and indexes on items and their executions.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "eventic"
STATUSES = ("pending", "processing", "retrying", "completed", "failed", "cancelled", "skipped")
WAKE = f"""
create function {SCHEMA}.wake_run() returns trigger language plpgsql as $$
begin
    update dbos.workflow_status
    set status = 'ENQUEUED', delay_until_epoch_ms = null
    where workflow_uuid = new.workflow_id and status = 'DELAYED';
    perform pg_notify('eventic_work', 'eventic_runs');
    return null;
end $$;
create trigger run_counters_wake after update on {SCHEMA}.run_counters for each row
    when (new.workflow_id is not null
          and (new.state in ('stopped', 'ended') or new.pending + new.processing + new.retrying = 0))
    execute function {SCHEMA}.wake_run()"""
LIVE = "superseded_at is null and not tombstone"


def upgrade() -> None:
    """Add the tables and the indexes."""
    moment = sa.TIMESTAMP(timezone=True)
    op.create_table(
        "run_counters",
        sa.Column("run_id", sa.Uuid(), primary_key=True),
        sa.Column("batch_execution_id", sa.Uuid(), primary_key=True, comment="all zeros for the run as a whole"),
        sa.Column("workflow_id", sa.Text(), comment="of the run's latest attempt; null for a batch execution"),
        sa.Column("state", sa.Text(), nullable=False, comment="running, paused, stopped or ended"),
        sa.Column("tolerated", sa.BigInteger(), comment="failed items after which no more are begun; null is any"),
        sa.Column("planned", sa.BigInteger(), nullable=False, server_default="0", comment="items in groups so far"),
        sa.Column(
            "planned_to", sa.BigInteger(), nullable=False, server_default="-1", comment="the last sequence number"
        ),
        sa.Column("total", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in STATUSES),
        sa.Column("started_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("changed_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        schema=SCHEMA,
        comment="how far each run is; moves with its items, in their transactions",
    )
    op.execute(f"alter table {SCHEMA}.run_counters set (fillfactor = 20)")
    op.execute(WAKE)
    op.create_table(
        "run_failures",
        sa.Column("run_id", sa.Uuid(), primary_key=True),
        sa.Column("error_type", sa.Text(), primary_key=True),
        sa.Column("failed", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("tolerated", sa.BigInteger(), comment="null is any number"),
        schema=SCHEMA,
        comment="failed items of each run, by the class of their error",
    )
    op.create_table(
        "rate_limits",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("free_at", moment, nullable=False, comment="when what was granted so far is used up"),
        schema=SCHEMA,
        comment="what limits the items that all workers together begin",
    )
    op.execute(
        f"create unique index records_items on {SCHEMA}.records "
        "((data ->> 'batch_id'), ((data ->> 'sequence_number')::bigint)) "
        f"where {LIVE} and class_type || '' = 'Item'"
    )
    op.execute(
        f"create index records_item_executions on {SCHEMA}.records "
        "((data ->> 'run_id'), (data ->> 'status'), ((data ->> 'number')::bigint)) "
        f"where {LIVE} and class_type || '' = 'ItemExecution'"
    )


def downgrade() -> None:
    """Drop what `upgrade` added, with its data."""
    for index in ("records_item_executions", "records_items"):
        op.execute(f"drop index {SCHEMA}.{index}")
    for table in ("rate_limits", "run_failures", "run_counters"):
        op.drop_table(table, schema=SCHEMA)
    op.execute(f"drop function {SCHEMA}.wake_run()")
