-- Purpose: work that is ready, by queue and by what decides who may take it: of each queue the first so many in the
--          order in which they are claimed, whatever lies behind them. Locks: none.
-- Index:   idx_workflow_status_in_flight_v2, by which it jumps from queue to queue. The second condition on the status
--          is there for the planner. Work that was put back or taken over is ready since then.
with recursive names as (
    (
        select w.queue_name as name
        from dbos.workflow_status w
        where w.status = 'ENQUEUED' and w.status in ('ENQUEUED', 'PENDING') and w.queue_name is not null
        order by w.queue_name
        limit 1
    )
    union all
    select (
        select w.queue_name
        from dbos.workflow_status w
        where w.status = 'ENQUEUED' and w.status in ('ENQUEUED', 'PENDING') and w.queue_name > names.name
        order by w.queue_name
        limit 1
    )
    from names
    where names.name is not null
), ready as (
    select names.name, next.*
    from names, lateral (
        select w.application_version as version, w.queue_partition_key is null as keyless,
               case when jsonb_typeof(w.attributes) = 'object' then w.attributes end as attributes,
               greatest(w.created_at, w.updated_at, w.delay_until_epoch_ms) as ready_ms
        from dbos.workflow_status w
        where w.queue_name = names.name and w.status = 'ENQUEUED' and w.status in ('ENQUEUED', 'PENDING')
        order by w.priority, w.created_at
        limit %(most)s
    ) next
    where names.name is not null
)
select name, version, keyless, attributes ->> 'eventic.waiting_for',
       coalesce(max((attributes ->> 'eventic.times')::int), 0), count(*)::int,
       sum(count(*)) over (partition by name) >= %(most)s,
       extract(epoch from clock_timestamp())::float8 - min(ready_ms) / 1000.0::float8
from ready
group by 1, 2, 3, 4
order by 1, 2, 3, 4
