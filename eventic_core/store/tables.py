"""The tables in schema `eventic`, as SQLAlchemy Core metadata; the migrations create exactly these.

Owns names, types, constraints and indexes. Knows no query and opens no connection.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import UserDefinedType

SCHEMA = "eventic"

metadata = sa.MetaData(schema=SCHEMA)


class TransactionId(UserDefinedType[int]):
    """Postgres' 64-bit transaction id, `xid8`, which never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Give the type's SQL name."""
        return "xid8"


records = sa.Table(
    "records",
    metadata,
    sa.Column("version_id", sa.Uuid, primary_key=True),
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("class_type", sa.Text, nullable=False),
    sa.Column("data", JSONB, nullable=False),
    sa.Column("tombstone", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("schema_version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("actor", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("correlation_id", sa.Text),
    sa.Column("workflow_id", sa.Text),
    sa.Column("step_id", sa.Integer),
    sa.Column("recorded_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("superseded_at", sa.TIMESTAMP(timezone=True), comment="null while current"),
    sa.Column(
        "xid",
        TransactionId,
        nullable=False,
        server_default=sa.text("pg_current_xact_id()"),
        comment="the writing transaction, or that of the previous version where it is later",
    ),
    sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("calls", sa.Text, comment="the evented methods whose call made it, joined by commas"),
    sa.UniqueConstraint("id", "version", name="records_id_version_key"),
    sa.CheckConstraint("version >= 0", name="records_version_check"),
    sa.CheckConstraint("superseded_at > recorded_at", name="records_superseded_check"),
    comment="one immutable row per version of a record",
)

CURRENT = records.c.superseded_at.is_(None)
LIVE = sa.and_(CURRENT, sa.not_(records.c.tombstone))

sa.Index("records_current_key", records.c.id, unique=True, postgresql_where=CURRENT)
sa.Index("records_class_current", records.c.class_type, records.c.id, postgresql_where=LIVE)
sa.Index(
    "records_data_current",
    records.c.data,
    postgresql_using="gin",
    postgresql_ops={"data": "jsonb_path_ops"},
    postgresql_where=LIVE,
)
sa.Index("records_feed", records.c.xid, records.c.position)
sa.Index(
    "records_workflow", records.c.workflow_id, records.c.step_id, postgresql_where=records.c.workflow_id.is_not(None)
)

record_keys = sa.Table(
    "record_keys",
    metadata,
    sa.Column("record_id", sa.Uuid, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True, comment="the class that declares the key"),
    sa.Column("name", sa.Text, primary_key=True, comment="its field, or fields joined by a comma"),
    sa.Column("value", sa.Text, nullable=False, comment="the JSON of the value, or of the list of values"),
    sa.UniqueConstraint("scope", "name", "value", name="record_keys_value_key"),
    comment="the unique keys of the current, undeleted records",
)

record_classes = sa.Table(
    "record_classes",
    metadata,
    sa.Column("class_type", sa.Text, primary_key=True),
    sa.Column("schema_version", sa.Integer, primary_key=True),
    comment="every schema version that was ever written, for the start-up check",
)

handlers = sa.Table(
    "handlers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("class_type", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True, comment="create, update, delete or call"),
    sa.Column("method", sa.Text, primary_key=True, server_default="", comment="of kind call"),
    sa.Column("since_xid", TransactionId, nullable=False, comment="handles versions from here on in the feed"),
    sa.Column("caught_up", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    comment="what each handler subscribes to; a writer enqueues work for them",
)

handlers_generation = sa.Table(
    "handlers_generation",
    metadata,
    sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
    comment="one row; moves with every change of handlers, so that no writer goes by an old list",
)

handled = sa.Table(
    "handled",
    metadata,
    sa.Column("handler", sa.Text, primary_key=True),
    sa.Column("record_id", sa.Uuid, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False, comment="the last one handled or set aside; -1 is none"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0", comment="at the version after it"),
    sa.Column("due_at", sa.TIMESTAMP(timezone=True), comment="when the next attempt is due"),
    comment="how far each handler came with each record",
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("handler", sa.Text, nullable=False),
    sa.Column("class_type", sa.Text, nullable=False),
    sa.Column("record_id", sa.Uuid, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", JSONB, nullable=False),
    sa.Column("failed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("state", sa.Text, nullable=False, server_default="open", comment="open, retried, done or discarded"),
    sa.Column("settled_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("settled_by", sa.Text),
    comment="versions a handler gave up on",
)

sa.Index(
    "dead_letters_open",
    dead_letters.c.failed_at,
    dead_letters.c.id,
    postgresql_where=sa.text("state in ('open', 'retried')"),
)

# In words that only these indexes know: without statistics of a class, as when its first run begins, the planner
# thinks records_class_current as good, and then each group would read all executions there are.
sa.Index(
    "records_items",
    sa.text("(data ->> 'batch_id')"),
    sa.text("((data ->> 'sequence_number')::bigint)"),
    unique=True,
    postgresql_where=sa.and_(LIVE, sa.text("class_type || '' = 'Item'")),
    _table=records,
)
sa.Index(
    "records_item_executions",
    sa.text("(data ->> 'run_id')"),
    sa.text("(data ->> 'status')"),
    sa.text("((data ->> 'number')::bigint)"),
    postgresql_where=sa.and_(LIVE, sa.text("class_type || '' = 'ItemExecution'")),
    _table=records,
)
sa.Index(
    "records_schedule_runs",
    sa.text("(data ->> 'schedule_id')"),
    sa.text("(data ->> 'status')"),
    postgresql_where=sa.and_(LIVE, sa.text("class_type || '' = 'DagRun' and data ->> 'schedule_id' is not null")),
    _table=records,
)

_COUNTERS = ("pending", "processing", "retrying", "completed", "failed", "cancelled", "skipped")

run_counters = sa.Table(
    "run_counters",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True),
    sa.Column("batch_execution_id", sa.Uuid, primary_key=True, comment="all zeros for the run as a whole"),
    sa.Column("workflow_id", sa.Text, comment="of the run's latest attempt; null for a batch execution"),
    sa.Column("state", sa.Text, nullable=False, comment="running, paused, stopped or ended"),
    sa.Column("tolerated", sa.BigInteger, comment="failed items after which no more are begun; null is any"),
    sa.Column("planned", sa.BigInteger, nullable=False, server_default="0", comment="items in groups so far"),
    sa.Column("planned_to", sa.BigInteger, nullable=False, server_default="-1", comment="the last sequence number"),
    sa.Column("total", sa.BigInteger, nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _COUNTERS),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("changed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    comment="how far each run is; moves with its items, in their transactions",
)

run_failures = sa.Table(
    "run_failures",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True),
    sa.Column("error_type", sa.Text, primary_key=True),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("tolerated", sa.BigInteger, comment="null is any number"),
    comment="failed items of each run, by the class of their error",
)

rate_limits = sa.Table(
    "rate_limits",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column(
        "free_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="when what was granted so far is used up"
    ),
    comment="what limits the items that all workers together begin",
)

dag_runs = sa.Table(
    "dag_runs",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True),
    sa.Column("workflow_id", sa.Text, nullable=False, comment="of the run's latest attempt"),
    sa.Column("dag", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, comment="running, paused, done or ended"),
    sa.Column("letters", sa.Text, nullable=False, comment="the state of each job, in the order of the plan"),
    sa.Column("refused", JSONB, nullable=False, comment="to each job the branches that did not choose it"),
    sa.Column("plan", JSONB, nullable=False, comment="what comes after what, as it was when the run started"),
    sa.Column("parameters", JSONB, nullable=False),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("changed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    comment="how far each run of a DAG is; moves with its jobs, in their transactions",
)

waits = sa.Table(
    "waits",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True),
    sa.Column("work_id", sa.Text, primary_key=True),
    comment="work that goes on when a run has ended",
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("schedule_id", sa.Uuid, primary_key=True),
    sa.Column("timetable", sa.Text, nullable=False, comment="by which it was decided"),
    sa.Column("decided_until", sa.TIMESTAMP(timezone=True), nullable=False, comment="no due time up to here is open"),
    sa.Column("waiting_due_at", sa.TIMESTAMP(timezone=True), comment="the due time whose run waits for another to end"),
    sa.Column("missed", sa.BigInteger, nullable=False, server_default="0", comment="due times that no worker came to"),
    sa.Column("skipped", sa.BigInteger, nullable=False, server_default="0", comment="due times left out for a run"),
    sa.Column("last_error", sa.Text, comment="why the last run that was due could not be started; null if it was"),
    sa.Column("changed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    comment="how far each schedule has come; moves with the runs it starts, in their transactions",
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("slot", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False, comment="in the application_name of all its sessions"),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("app_version", sa.Text, nullable=False),
    sa.Column("code_version", sa.Text, nullable=False, comment="of eventic_core"),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("queues", ARRAY(sa.Text), nullable=False, comment="that it serves"),
    sa.Column("running", sa.Integer, nullable=False, server_default="0", comment="pieces of work"),
    sa.Column("claimed", sa.Integer, nullable=False, server_default="0", comment="pieces it has not begun"),
    sa.Column("state", sa.Text, nullable=False, comment="alive, draining, stopped or lost"),
    sa.Column("drain_asked_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("recovered", sa.Integer, nullable=False, server_default="0", comment="runs taken over from it"),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("beat_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Index("workers_slot", "slot", unique=True, postgresql_where=sa.text("state in ('alive', 'draining')")),
    comment="processes that work, by the server's clock; those that ended are kept for a while",
)

paused_queues = sa.Table(
    "paused_queues",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("paused_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("paused_by", sa.Text),
    sa.Column("reason", sa.Text),
    comment="queues of which nothing is claimed",
)

history_floors = sa.Table(
    "history_floors",
    metadata,
    sa.Column("class_type", sa.Text, primary_key=True),
    sa.Column(
        "since",
        sa.TIMESTAMP(timezone=True),
        nullable=False,
        comment="as of earlier moments versions are missing, for they were removed",
    ),
    comment="how far back the past of each class is whole, where past versions were removed",
)
