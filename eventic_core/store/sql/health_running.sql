-- Purpose: runs that somebody has begun and not ended, by who it is, what decides who may go on with them, and how often
--          the one that began most often did. Locks: none. Index: idx_workflow_status_pending.
with running as (
    select w.executor_id, w.application_version, w.queue_name,
           case when jsonb_typeof(w.attributes) = 'object' then (w.attributes ->> 'eventic.begun')::int end as begun
    from dbos.workflow_status w
    where w.status = 'PENDING'
    order by w.created_at
    limit %(most)s
)
select executor_id, application_version, queue_name, count(*)::int, coalesce(max(begun), 0),
       sum(count(*)) over () >= %(most)s
from running
group by 1, 2, 3
order by 1, 2, 3
