-- Purpose: give claimed work back, counting the attempt or not; ready again after a delay, or at once for 0.
-- Locks:   its rows. Index: workflow_status_pkey. The attribute says what it waits for, and is dropped for null.
update dbos.workflow_status
set status = case when w.delay_ms > 0 then 'DELAYED' else 'ENQUEUED' end,
    delay_until_epoch_ms = case when w.delay_ms > 0
                                then (extract(epoch from clock_timestamp()) * 1000)::bigint + w.delay_ms end,
    owner_xid = null, executor_id = null, started_at_epoch_ms = null,
    recovery_attempts = greatest(recovery_attempts - w.uncounted, 0),
    attributes = case when w.waiting_for is null and jsonb_typeof(attributes) is distinct from 'object' then attributes
                      when w.waiting_for is null then attributes - 'eventic.waiting_for'
                      else case when jsonb_typeof(attributes) = 'object' then attributes else '{}' end
                           || jsonb_build_object('eventic.waiting_for', w.waiting_for) end,
    updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
from unnest(%s::text[], %s::text[]) as o (id, owner), (select %s::bigint as delay_ms, %s::text as waiting_for, %s::int as uncounted) w
where workflow_uuid = o.id and owner_xid = o.owner and status = 'PENDING'
