-- Purpose: the unfinished work of executors that are dead becomes ready again, for whoever is alive and of its version;
--          their late writes find that they do not own it any more. Locks: its rows, but for those that a session of the
--          dead one still holds, which is found out later. Claims may be named. Index: idx_workflow_status_pending.
update dbos.workflow_status
set status = 'ENQUEUED', owner_xid = null, started_at_epoch_ms = null,
    application_name = null,
    queue_name = coalesce(nullif(queue_name, '_dbos_internal_queue'), %s),
    updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
where workflow_uuid in (
    select workflow_uuid
    from dbos.workflow_status
    where status = 'PENDING' and executor_id = any(%s) and (%s::text[] is null or owner_xid = any(%s))
    for update skip locked
)
returning workflow_uuid, executor_id
