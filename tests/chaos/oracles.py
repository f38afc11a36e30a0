"""What must hold whatever happened, seen from outside of the engine: by plain SQL over what it left, and side effects.

Each oracle is a query for what is wrong; `test_oracles` shows of each that it sees a planted bug. They are asked of a
server where no fault is under way; those of `WHEN_QUIET` only once nothing is left to do.
"""

from __future__ import annotations

from typing import Any

import psycopg
from histories import WRONG_HISTORIES
from limits import CONCURRENCY

LOCKS = 0x65766E74
"""The first key of the slots' advisory locks."""
_ALIVE = f"""exists (
    select from pg_locks l
    where l.locktype = 'advisory' and l.classid = {LOCKS} and l.granted
      and l.database = (select oid from pg_database where datname = current_database())
      and 'worker-' || l.objid = s.executor_id)"""
_OPEN = "s.status in ('ENQUEUED', 'PENDING', 'DELAYED')"

ALWAYS = {
    **WRONG_HISTORIES,
    "a step wrote a record twice": """
        select workflow_id, step_id, id, count(*) from eventic.records
        where class_type like 'Chaos%' and workflow_id is not null
        group by workflow_id, step_id, id having count(*) > 1""",
    "something was made twice": """
        select class_type, data ->> 'name', count(*) from eventic.records
        where class_type like 'Chaos%' and version = 0 group by 1, 2 having count(*) > 1""",
    "an unfinished run has no owner, due time or named wait": f"""
        select s.workflow_uuid, s.status, s.queue_name, s.executor_id, s.owner_xid from dbos.workflow_status s
        where {_OPEN} and not coalesce(case s.status
            when 'PENDING' then s.owner_xid is not null and s.executor_id is not null
            when 'DELAYED' then s.delay_until_epoch_ms is not null
            else s.owner_xid is null and s.queue_name in (select name from dbos.queues union values ('eventic_direct'))
            end, false)""",
    "a run that ended has no outcome, or two": """
        select s.workflow_uuid, s.status from dbos.workflow_status s
        left join dbos.workflow_output o using (workflow_uuid)
        where s.status = 'SUCCESS' and (o.output is null or o.error is not null)
           or s.status = 'ERROR' and (o.error is null or o.output is not null)
           or s.status in ('ENQUEUED', 'PENDING', 'DELAYED') and (o.output is not null or o.error is not null)
           or s.status not in ('ENQUEUED', 'PENDING', 'DELAYED') and s.owner_xid is not null""",
    "counters are not what the rows say": """
        select c.run_id, c.total, c.completed, c.failed, r.ended, r.completed, r.failed
        from eventic.run_counters c, lateral (
            select count(*) filter (
                       where data ->> 'status' in ('COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')) as ended,
                   count(*) filter (where data ->> 'status' = 'COMPLETED') as completed,
                   count(*) filter (where data ->> 'status' = 'FAILED') as failed,
                   count(*) filter (where data ->> 'status' = 'PROCESSING') as processing,
                   count(*) filter (where data ->> 'status' = 'RETRYING') as retrying
            from eventic.records
            where class_type = 'ItemExecution' and superseded_at is null and data ->> 'run_id' = c.run_id::text) r
        where c.batch_execution_id = '00000000-0000-0000-0000-000000000000'
          and (c.completed, c.failed, c.processing, c.retrying, c.completed + c.failed + c.cancelled + c.skipped)
              is distinct from (r.completed, r.failed, r.processing, r.retrying, r.ended)
           or c.total <> c.pending + c.processing + c.retrying + c.completed + c.failed + c.cancelled + c.skipped""",
    "parts do not add up to their run": """
        select run_id from eventic.run_counters group by run_id
        having sum(case when w then 1 else -1 end * total) filter (where n > 1) <> 0
            or sum(case when w then 1 else -1 end * completed) filter (where n > 1) <> 0
            or sum(case when w then 1 else -1 end * failed) filter (where n > 1) <> 0""".replace(
        "from eventic.run_counters",
        """from (select *, batch_execution_id = '00000000-0000-0000-0000-000000000000' as w,
                        count(*) over (partition by run_id) as n from eventic.run_counters) c""",
    ),
    "a due time has two runs": """
        select data ->> 'schedule_id', data ->> 'due_at', count(*) from eventic.records
        where class_type = 'DagRun' and version = 0 and data ->> 'due_at' is not null
        group by 1, 2 having count(*) > 1""",
    "a step's idempotency key changed, or is two steps'": """
        select run, step from chaos.effects group by run, step having count(distinct key) <> 1
        union all select min(run), key from chaos.effects group by key having count(distinct (run, step)) > 1""",
    "a step that was on record was done again": """
        select a.run from chaos.effects a where a.step = 'first' and a.began_at > (
            select min(b.ended_at) from chaos.effects b where b.run = a.run and b.step = 'second')""",
    "a worker did more at a time than the queue allows": f"""
        select e.run, e.pid, count(*) from chaos.effects e
        join chaos.effects o on o.pid = e.pid and o.began_at <= e.began_at and o.ended_at > e.began_at
        group by e.run, e.step, e.pid, e.began_at having count(*) > {CONCURRENCY}""",
    "keyed work was not done in order": """
        select data ->> 'name', data -> 'entries' from eventic.records
        where class_type = 'ChaosLedger' and superseded_at is null and data -> 'entries' is distinct from (
            select coalesce(jsonb_agg(n order by n), '[]')
            from generate_series(0, jsonb_array_length(data -> 'entries') - 1) n)""",
}
"""By what is said when the query gives a row."""

WHEN_QUIET = {
    "work is left over": f"""
        select s.workflow_uuid, s.name, s.status, s.queue_name, s.executor_id, s.recovery_attempts, s.attributes
        from dbos.workflow_status s
        where {_OPEN} and s.name <> 'eventic.schedule' and not s.workflow_uuid like 'left open%'""",
    "work is left on the queue of called runs": f"""
        select s.workflow_uuid, s.status from dbos.workflow_status s
        where {_OPEN} and s.queue_name = 'eventic_direct'""",
    "a run is owned by a worker that is dead": f"""
        select s.workflow_uuid, s.executor_id from dbos.workflow_status s
        where s.status = 'PENDING' and not {_ALIVE}""",
    "somebody waits for a run that has ended": "select run_id, work_id from eventic.waits",
    "a version was not handled once": """
        select i.id, i.version, count(s.id) from eventic.records i
        left join eventic.records s on s.class_type = 'ChaosSeen' and s.version = 0
             and s.data ->> 'name' = i.id || ' ' || i.version
        where i.class_type = 'ChaosItem' group by i.id, i.version having count(s.id) <> 1""",
    "a story that succeeded left something out": """
        select s.workflow_uuid, i.version, i.data ->> 'value' from dbos.workflow_status s
        left join eventic.records i on i.class_type = 'ChaosItem' and i.superseded_at is null
             and i.data ->> 'name' = s.workflow_uuid
        where s.status = 'SUCCESS' and s.name in ('story', 'async_story')
          and (i.version, (i.data ->> 'value')::int) is distinct from
              (case s.name when 'story' then 3 else 1 end, case s.name when 'story' then 111 else 1 end)""",
    "a step that succeeded left no effect": """
        select s.workflow_uuid, x.step from dbos.workflow_status s
        cross join (values ('story', 'first'), ('story', 'second'), ('async_story', 'first')) x (name, step)
        where s.status = 'SUCCESS' and s.name = x.name and not exists (
            select from chaos.effects e where e.run = s.workflow_uuid and e.step = x.step)""",
    "work that follows was not done once": """
        select s.workflow_uuid from dbos.workflow_status s
        cross join (values ('settled '), ('followed ')) x (what)
        where s.status = 'SUCCESS' and s.name = 'story' and 1 <> (
            select count(*) from eventic.records r
            where r.class_type = 'ChaosMade' and r.data ->> 'name' = x.what || s.workflow_uuid)""",
    "a run of items or jobs has not ended": """
        select class_type, id, data ->> 'status' from eventic.records
        where class_type in ('Run', 'DagRun', 'BatchExecution', 'ItemExecution', 'JobRun') and superseded_at is null
          and data ->> 'status' not in ('COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')""",
}
"""Of a system in which nothing is under way any more; the workers live."""

ALONE = {
    "a slot is still held": f"select objid, pid from pg_locks where locktype = 'advisory' and classid = {LOCKS} "
    "and database = (select oid from pg_database where datname = current_database())",
    "a session of a worker is still there": """
        select pid, state from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend' and application_name like 'chaos%'""",
}
"""Once all workers have ended."""
ORACLES = ALWAYS | WHEN_QUIET | ALONE
_MOST = 5

Ends = dict[str, tuple[Any, ...]]


def problems(connection: psycopg.Connection[Any], oracles: dict[str, str]) -> list[str]:
    """Ask oracles; gives what is wrong, with the first rows that show it."""
    found = []
    for what, sql in oracles.items():
        rows = connection.execute(f"select * from ({sql}) wrong limit {_MOST}").fetchall()
        found += [f"{what}: {row}" for row in rows]
    return found


def ends(connection: psycopg.Connection[Any]) -> Ends:
    """Read how each run that has ended did so; not when of a cancelled one, whose cancel may be repeated."""
    rows = connection.execute(
        "select s.workflow_uuid, s.status, case when s.status <> 'CANCELLED' then s.completed_at end, o.output, "
        "o.error from dbos.workflow_status s "
        "left join dbos.workflow_output o using (workflow_uuid) where s.status in ('SUCCESS', 'ERROR', 'CANCELLED')"
    ).fetchall()
    return {row[0]: row[1:] for row in rows}


def changed(before: Ends, after: Ends) -> list[str]:
    """Say which runs that had ended have ended otherwise since."""
    return [
        f"a run that had ended changed: {run} from {end} to {after.get(run)}"
        for run, end in before.items()
        if after.get(run) != end
    ]
