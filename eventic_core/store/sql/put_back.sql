-- Purpose: give claimed work back, counting the attempt or not; ready again after a delay, or at once for 0.
-- Locks:   its rows. Index: workflow_status_pkey.
update dbos.workflow_status
set status = case when w.delay_ms > 0 then 'DELAYED' else 'ENQUEUED' end,
    delay_until_epoch_ms = case when w.delay_ms > 0 then w.now_ms + w.delay_ms end,
    owner_xid = null, executor_id = null, started_at_epoch_ms = null,
    recovery_attempts = greatest(recovery_attempts - w.uncounted, 0),
    attributes = case when jsonb_typeof(attributes) = 'object' then attributes - 'eventic.begun' else attributes end,
    updated_at = w.now_ms
from unnest(%s::text[], %s::text[]) as o (id, owner),
     (select %s::bigint as delay_ms, %s::int as uncounted,
             (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms) w
where workflow_uuid = o.id and owner_xid = o.owner and status = 'PENDING'
returning workflow_uuid
