-- Purpose: work waits for a run to end, and looks for itself after a while. After hold_waits, so that none ends meanwhile.
-- Locks:   its row. Index: workflow_status_pkey.
update dbos.workflow_status
set status = 'DELAYED', delay_until_epoch_ms = (extract(epoch from clock_timestamp()) * 1000)::bigint + %s,
    owner_xid = null, executor_id = null, started_at_epoch_ms = null, recovery_attempts = 0
where workflow_uuid = %s and owner_xid = %s and status = 'PENDING'
returning 1
