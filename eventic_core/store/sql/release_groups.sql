-- Purpose: the groups of a run that was paused go on. Locks: their rows. Index: idx_workflow_status_parent_workflow_id.
with released as (
    update dbos.workflow_status
    set status = 'ENQUEUED', delay_until_epoch_ms = null
    where parent_workflow_id = %s and parent_workflow_id is not null and status = 'DELAYED' and delay_until_epoch_ms = %s
    returning queue_name
)
select count(*), count(pg_notify('eventic_work', queue_name)) from released
