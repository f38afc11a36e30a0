-- Purpose: the items of automations' runs that have not ended, by state, and those runs. A run that waits sleeps for a
--          minute at most: it is among the work that falls due next, of which so much is looked at. Locks: none.
-- Index:   idx_workflow_status_delayed, idx_workflow_status_in_flight_v2; run_counters_pkey.
with sleeping as (
    select w.workflow_uuid as id, w.queue_name
    from dbos.workflow_status w
    where w.status = 'DELAYED' and w.delay_until_epoch_ms < (extract(epoch from now()) * 1000)::bigint + 300000
    order by w.delay_until_epoch_ms
    limit %(most)s
), going as (
    select id from sleeping where queue_name = %(queue)s
    union all
    (
        select w.workflow_uuid
        from dbos.workflow_status w
        where w.status in ('ENQUEUED', 'PENDING') and w.queue_name = %(queue)s
        limit %(most)s
    )
)
select count(*)::int, count(*) filter (where c.state = 'paused')::int,
       coalesce(sum(c.pending), 0)::bigint, coalesce(sum(c.processing), 0)::bigint,
       coalesce(sum(c.retrying), 0)::bigint, coalesce(sum(c.completed), 0)::bigint, coalesce(sum(c.failed), 0)::bigint,
       coalesce(sum(c.cancelled), 0)::bigint, coalesce(sum(c.skipped), 0)::bigint
from (select distinct split_part(id, ':', 1)::uuid as run_id from going) g
join eventic.run_counters c
  on c.run_id = g.run_id and c.batch_execution_id = '00000000-0000-0000-0000-000000000000'
where c.state <> 'ended'
