"""Statements on items, executions and scheduled runs use the indexes made for them, also with no statistics yet."""

from __future__ import annotations

from importlib.resources import files
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core.store import sql
from eventic_core.store.executions import _LOCK_ITEMS, _PEND_ITEMS, _UNFINISHED_NUMBERS
from eventic_core.store.groups import _GROUP_ITEMS
from eventic_core.store.sql import statement

RUN, BATCH = str(uuid4()), str(uuid4())
VALUES = {
    "run": RUN, "batch": BATCH, "batch_execution": str(uuid4()), "first": 1, "last": 10, "only": None, "after": 5,
    "count": 10, "to": 10, "before": 0, "total": 10, "max_attempts": 1,
    "actor": None, "correlation_id": None, "workflow_id": RUN, "generation": 0, "listed": False,
    "schedule": RUN, "backfill": None,
}  # fmt: skip
STATEMENTS = {
    "group_items": (_GROUP_ITEMS, VALUES, "records_item_executions"),
    "batch_items": (statement("batch_items"), (BATCH, 1, 10), "records_items"),
    "begun_items": (statement("begun_items"), ([UUID(RUN)],), "records_id_version_key"),
    "plan_items": (statement("plan_items"), VALUES, "records_items"),
    "pend_items": (_PEND_ITEMS, VALUES, "records_items"),
    "unfinished_numbers": (_UNFINISHED_NUMBERS, VALUES, "records_item_executions"),
    "lock_items": (_LOCK_ITEMS, (RUN,), "records_item_executions"),
    "report_counts": (statement("report_counts"), (RUN,), "records_item_executions"),
    "unended_runs": (statement("unended_runs"), VALUES, "records_schedule_runs"),
}
ROWS = """
insert into eventic.records (version_id, id, version, class_type, data)
select gen_random_uuid(), gen_random_uuid(), 0, 'Item',
       jsonb_build_object('batch_id', %(batch)s::text, 'sequence_number', n, 'payload', n)
from generate_series(1, 2000) n
union all
select gen_random_uuid(), gen_random_uuid(), 0, 'ItemExecution',
       jsonb_build_object('run_id', %(run)s::text, 'status', 'PENDING', 'number', n, 'item_id', gen_random_uuid())
from generate_series(1, 2000) n
union all
select gen_random_uuid(), gen_random_uuid(), 0, 'DagRun',
       jsonb_build_object('schedule_id', %(run)s::text, 'status', 'COMPLETED', 'properties', '{}'::jsonb)
from generate_series(1, 2000) n
"""


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_no_more_than_those_it_is_about(name: str, migrated_url: str) -> None:
    text, values, index = STATEMENTS[name]
    with psycopg.connect(migrated_url) as connection:
        connection.execute("analyze eventic.records")
        connection.execute(ROWS, VALUES)
        plan = "\n".join(row[0] for row in connection.execute(f"explain {text}", values))
    assert f"using {index}" in plan or f"on {index}" in plan
    assert "records_class_current" not in plan
    assert "Seq Scan on records" not in plan


def test_every_statement_on_items_asks_in_the_words_of_their_indexes() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in files(sql).iterdir() if path.name.endswith(".sql")}
    other = [name for name, text in texts.items() if "class_type = 'Item" in text]
    assert other == []
