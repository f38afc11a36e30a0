-- Purpose: as health_ready, of work that is delayed: the first so many to fall due within some minutes, or overdue.
--          The last column is how long ago that was, below 0 of what is still to come. Locks: none.
-- Index:   idx_workflow_status_delayed.
with delayed as (
    select coalesce(w.queue_name, '') as name, w.application_version as version,
           w.queue_partition_key is null as keyless,
           case when jsonb_typeof(w.attributes) = 'object' then w.attributes end as attributes,
           w.delay_until_epoch_ms as due_ms
    from dbos.workflow_status w
    where w.status = 'DELAYED'
      and w.delay_until_epoch_ms < (extract(epoch from now()) * 1000)::bigint + 300000
    order by w.delay_until_epoch_ms
    limit %(most)s
)
select name, version, keyless, attributes ->> 'eventic.waiting_for',
       coalesce(max((attributes ->> 'eventic.times')::int), 0), count(*)::int,
       sum(count(*)) over () >= %(most)s,
       extract(epoch from now())::float8 - min(due_ms) / 1000.0::float8
from delayed
group by 1, 2, 3, 4
order by 1, 2, 3, 4
