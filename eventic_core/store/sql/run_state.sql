-- Purpose: whether a run goes on: running, paused, stopped or ended. Locks: none. Index: run_counters_pkey.
select state from eventic.run_counters
where run_id = %s and batch_execution_id = '00000000-0000-0000-0000-000000000000'
