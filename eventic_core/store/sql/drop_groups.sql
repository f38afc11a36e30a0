-- Purpose: groups of a run that have not begun are not done any more. Locks: their rows.
-- Index:   idx_workflow_status_parent_workflow_id.
update dbos.workflow_status
set status = 'CANCELLED', updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint,
    completed_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
where parent_workflow_id = %s and parent_workflow_id is not null and status in ('ENQUEUED', 'DELAYED')
returning 1
