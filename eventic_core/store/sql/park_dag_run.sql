-- Purpose: a run waits for its jobs; gives no row if all have ended. After hold_dag_run, so that none ends meanwhile.
-- Locks:   the row of its workflow. Index: dag_runs_pkey, workflow_status_pkey.
update dbos.workflow_status s
set status = 'DELAYED', delay_until_epoch_ms = (extract(epoch from clock_timestamp()) * 1000)::bigint + %(again)s,
    owner_xid = null, executor_id = null, started_at_epoch_ms = null, recovery_attempts = 0
where s.workflow_uuid = %(id)s and s.owner_xid = %(owner)s and s.status = 'PENDING'
  and exists (select from eventic.dag_runs where run_id = %(run)s and state in ('running', 'paused'))
returning 1
