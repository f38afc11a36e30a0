-- Purpose: claimed work is given back until a moment, in the transaction of what it did. Gives no row if it is another's.
-- Locks:   its row. Index: workflow_status_pkey.
update dbos.workflow_status
set status = 'DELAYED', delay_until_epoch_ms = ceil(extract(epoch from %s::timestamptz) * 1000)::bigint,
    owner_xid = null, executor_id = null, started_at_epoch_ms = null, recovery_attempts = 0,
    updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
where workflow_uuid = %s and owner_xid = %s and status = 'PENDING'
returning 1
