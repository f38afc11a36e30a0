-- Purpose: give work back that this process does not know, uncounted, and note what it waits for. It is offered again
--          after a second, then two, four, and so on up to a limit: soon to another worker, not in a hot loop.
-- Locks:   its row. Index: workflow_status_pkey. Rows made by DBOS's clients hold a JSON null in attributes.
update dbos.workflow_status
set status = 'DELAYED',
    delay_until_epoch_ms = w.now_ms + least(w.limit_ms, 1000 * power(2, w.times))::bigint,
    owner_xid = null, executor_id = null, started_at_epoch_ms = null,
    recovery_attempts = greatest(recovery_attempts - 1, 0),
    attributes = w.attributes || jsonb_build_object('eventic.waiting_for', w.waiting_for, 'eventic.times', w.times + 1),
    updated_at = w.now_ms
from (
    select workflow_uuid as id, case when jsonb_typeof(attributes) = 'object' then attributes else '{}' end as attributes,
           least(coalesce((attributes ->> 'eventic.times')::int, 0), 30) as times,
           %s::text as waiting_for, %s::bigint as limit_ms,
           (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms
    from dbos.workflow_status
    where workflow_uuid = %s
) w
where workflow_uuid = w.id and owner_xid = %s and status = 'PENDING'
returning workflow_uuid
