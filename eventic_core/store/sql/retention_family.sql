-- Purpose: runs with all that they started, whatever depth, the nearest first, and whether nothing needs them any more:
--          each has ended by then, nobody unfinished names it or waits for it, and it is no part of an unfinished run
--          over a batch or of a DAG. Locks: none.
-- Index:   workflow_status_pkey, idx_workflow_status_parent_workflow_id, operation_outputs_pkey.
with recursive family (root, id, depth) as (
    select r, r, 0 from unnest(%(roots)s::text[]) r
    union all
    select f.root, c.id, f.depth + 1
    from family f
    cross join lateral (
        select w.workflow_uuid as id from dbos.workflow_status w where w.parent_workflow_id = f.id
        union
        select w.workflow_uuid
        from dbos.operation_outputs o
        join dbos.workflow_status w on w.workflow_uuid = o.workflow_uuid || '-' || lpad(o.function_id::text, 6, '0')
        where o.workflow_uuid = f.id
    ) c
    where f.depth < 1000
), open as materialized (
    select run_id::text as id from eventic.run_counters
    where batch_execution_id = '00000000-0000-0000-0000-000000000000' and state <> 'ended'
    union
    select run_id::text from eventic.dag_runs where state <> 'ended'
    union
    select run_id::text from eventic.waits
), held as materialized (
    select h as id from unnest(%(held)s::text[]) h
)
select f.root, f.id,
       w.status not in ('ENQUEUED', 'PENDING', 'DELAYED') and coalesce(w.completed_at, w.updated_at) < %(before)s
       and f.id not in (select id from held) and left(f.id, 36) not in (select id from open)
from family f
cross join lateral (  -- by the index: a join by hash would read all runs there are
    select s.status, s.completed_at, s.updated_at from dbos.workflow_status s where s.workflow_uuid = f.id offset 0
) w
order by f.depth
