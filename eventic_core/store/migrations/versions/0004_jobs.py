"""Runs of job DAGs and their schedules: how far each is; and work that waits for runs to end.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "eventic"


def upgrade() -> None:
    """Add the tables."""
    moment, count, text = sa.TIMESTAMP(timezone=True), sa.BigInteger(), sa.Text()
    op.create_table(
        "dag_runs",
        sa.Column("run_id", sa.Uuid(), primary_key=True),
        sa.Column("workflow_id", sa.Text(), nullable=False, comment="of the run's latest attempt"),
        sa.Column("dag", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="running, paused, done or ended"),
        sa.Column("letters", sa.Text(), nullable=False, comment="the state of each job, in the order of the plan"),
        sa.Column("refused", JSONB(), nullable=False, comment="to each job the branches that did not choose it"),
        sa.Column("plan", JSONB(), nullable=False, comment="what comes after what, as it was when the run started"),
        sa.Column("parameters", JSONB(), nullable=False),
        sa.Column("started_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("changed_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        schema=SCHEMA,
        comment="how far each run of a DAG is; moves with its jobs, in their transactions",
    )
    op.execute(f"alter table {SCHEMA}.dag_runs set (fillfactor = 20)")
    op.create_table(
        "waits",
        sa.Column("run_id", sa.Uuid(), primary_key=True),
        sa.Column("work_id", sa.Text(), primary_key=True),
        schema=SCHEMA,
        comment="work that goes on when a run has ended",
    )
    op.create_table(
        "schedules",
        sa.Column("schedule_id", sa.Uuid(), primary_key=True),
        sa.Column("timetable", sa.Text(), nullable=False, comment="by which it was decided"),
        sa.Column("decided_until", moment, nullable=False, comment="no due time up to here is open"),
        sa.Column("waiting_due_at", moment, comment="the due time whose run waits for another to end"),
        sa.Column("missed", count, nullable=False, server_default="0", comment="due times that no worker came to"),
        sa.Column("skipped", count, nullable=False, server_default="0", comment="due times left out for a run"),
        sa.Column("last_error", text, comment="why the last run that was due could not be started; null if it was"),
        sa.Column("changed_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        schema=SCHEMA,
        comment="how far each schedule has come; moves with the runs it starts, in their transactions",
    )
    op.execute(
        f"create index records_schedule_runs on {SCHEMA}.records ((data ->> 'schedule_id'), (data ->> 'status')) "
        "where superseded_at is null and not tombstone and class_type || '' = 'DagRun' "
        "and data ->> 'schedule_id' is not null"
    )


def downgrade() -> None:
    """Drop them, with their data."""
    op.execute(f"drop index {SCHEMA}.records_schedule_runs")
    op.drop_table("schedules", schema=SCHEMA)
    op.drop_table("waits", schema=SCHEMA)
    op.drop_table("dag_runs", schema=SCHEMA)
