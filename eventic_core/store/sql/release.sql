-- Purpose: give work back that runs, as a process ends; ready at once, and no attempt. What a transaction of it still
--          holds locked is left out: it is taken over when the process is gone.
-- Locks:   its rows. Index: workflow_status_pkey.
with mine as (
    select s.workflow_uuid as id
    from dbos.workflow_status s
    join unnest(%s::text[], %s::text[]) as o (id, owner) on s.workflow_uuid = o.id and s.owner_xid = o.owner
    where s.status = 'PENDING'
    for update of s skip locked
)
update dbos.workflow_status
set status = 'ENQUEUED', owner_xid = null, executor_id = null, started_at_epoch_ms = null,
    recovery_attempts = greatest(recovery_attempts - 1, 0),
    attributes = case when jsonb_typeof(attributes) = 'object' then attributes - 'eventic.begun' else attributes end,
    updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
from mine
where workflow_uuid = mine.id
returning workflow_uuid
