-- Purpose: jobs of a run have ended or are ready; with all of them ended its workflow, which waits, is woken.
-- Locks:   the run's row, held already; that of its workflow. Index: dag_runs_pkey, workflow_status_pkey.
with noted as (
    update eventic.dag_runs
    set letters = %(letters)s, refused = %(refused)s::jsonb, state = %(state)s, changed_at = clock_timestamp(),
        workflow_id = coalesce(%(workflow)s::text, workflow_id)
    where run_id = %(run)s
    returning workflow_id
), woken as (
    update dbos.workflow_status s
    set status = 'ENQUEUED', delay_until_epoch_ms = null
    from noted
    where s.workflow_uuid = noted.workflow_id and s.status = 'DELAYED' and %(state)s in ('done', 'ended')
    returning pg_notify('eventic_work', s.queue_name)
)
select 1 from noted
