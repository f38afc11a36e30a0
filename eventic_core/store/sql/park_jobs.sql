-- Purpose: a group of jobs waits while its run is paused. Locks: the run's row, shared, so that nobody resumes it meanwhile;
--          the group's row. Index: dag_runs_pkey, workflow_status_pkey.
with paused as materialized (
    select from eventic.dag_runs where run_id = %s and state = 'paused' for share
)
update dbos.workflow_status
set status = 'DELAYED', delay_until_epoch_ms = %s, owner_xid = null, executor_id = null, started_at_epoch_ms = null,
    recovery_attempts = greatest(recovery_attempts - 1, 0)
where workflow_uuid = %s and owner_xid = %s and status = 'PENDING' and exists (select from paused)
returning 1
