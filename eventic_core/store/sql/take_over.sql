-- Purpose: the unfinished work of executors that are dead becomes ready again, for whoever is alive; their late writes
--          find that they do not own it any more. Locks: its rows. Index: idx_workflow_status_pending.
update dbos.workflow_status
set status = 'ENQUEUED', owner_xid = null, started_at_epoch_ms = null,
    application_name = null,
    queue_name = coalesce(nullif(queue_name, '_dbos_internal_queue'), %s),
    updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
where status = 'PENDING' and executor_id = any(%s) and application_version = %s
returning workflow_uuid
