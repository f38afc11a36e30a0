-- Purpose: work that waited goes on. A statement of its own after end_waits, so that it sees what was parked meanwhile.
-- Locks:   its rows. Index: workflow_status_pkey.
with woken as (
    update dbos.workflow_status
    set status = 'ENQUEUED', delay_until_epoch_ms = null
    where workflow_uuid = any(%s) and status = 'DELAYED'
    returning queue_name
)
select count(*), count(pg_notify('eventic_work', queue_name)) from woken
