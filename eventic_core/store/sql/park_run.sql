-- Purpose: a run waits for its groups: until the last item is done, or it is stopped and the last group has ended.
--          Gives no row if it has not to wait. After lock_counters, so that neither happens meanwhile.
-- Locks:   its row. Index: run_counters_pkey, workflow_status_pkey, idx_workflow_status_parent_workflow_id.
update dbos.workflow_status s
set status = 'DELAYED', delay_until_epoch_ms = (extract(epoch from clock_timestamp()) * 1000)::bigint + %(again)s, owner_xid = null, executor_id = null,
    started_at_epoch_ms = null, recovery_attempts = 0
where s.workflow_uuid = %(id)s and s.owner_xid = %(owner)s and s.status = 'PENDING' and exists (
    select from eventic.run_counters
    where run_id = %(run)s and batch_execution_id = '00000000-0000-0000-0000-000000000000'
      and (state in ('running', 'paused') and pending + processing + retrying > 0
           or state = 'stopped' and exists (
               select from dbos.workflow_status g
               where g.parent_workflow_id = %(id)s and g.parent_workflow_id is not null and g.status = 'PENDING')))
returning 1
