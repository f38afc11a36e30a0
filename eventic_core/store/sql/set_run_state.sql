-- Purpose: pause, resume, stop, end or redrive a run: its counters' state, if it is one of those it may follow; what is
--          null stays. Locks: the run's counters. Index: run_counters_pkey.
update eventic.run_counters
set state = %(state)s::text, changed_at = clock_timestamp(),
    workflow_id = coalesce(%(workflow_id)s::text, workflow_id),
    planned = case when %(workflow_id)s::text is null then planned else 0 end,
    tolerated = case when %(resolve)s::bool then %(tolerated)s::bigint else tolerated end
where run_id = %(run)s::uuid and batch_execution_id = '00000000-0000-0000-0000-000000000000' and state = any(%(before)s::text[])
returning 1
