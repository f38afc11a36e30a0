-- Purpose: every queue that is registered or has unfinished runs, and how many of each kind. Locks: none.
-- Index:   idx_workflow_status_in_flight_v2, idx_workflow_status_delayed: finished runs are not looked at.
-- A run that was delayed waits from the moment it was due; by the database's clock.
with unfinished as (
    select queue_name, status, created_at, delay_until_epoch_ms
    from dbos.workflow_status where status in ('ENQUEUED', 'PENDING') and queue_name is not null
    union all
    select queue_name, status, created_at, delay_until_epoch_ms
    from dbos.workflow_status where status = 'DELAYED' and queue_name is not null
), counted as (
    select queue_name as name,
           count(*) filter (where status = 'ENQUEUED') as waiting,
           count(*) filter (where status = 'DELAYED') as delayed,
           count(*) filter (where status = 'PENDING') as running,
           min(greatest(created_at, delay_until_epoch_ms)) filter (where status = 'ENQUEUED') as oldest_ms
    from unfinished
    group by queue_name
)
select coalesce(q.name, c.name), coalesce(c.waiting, 0), coalesce(c.delayed, 0), coalesce(c.running, 0),
       case when c.oldest_ms is not null
            then greatest(extract(epoch from clock_timestamp()) - c.oldest_ms / 1000.0, 0)::float8 end,
       q.worker_concurrency, q.name is not null
from dbos.queues q
full join counted c on c.name = q.name
order by 1
