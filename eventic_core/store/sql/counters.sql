-- Purpose: a run's counters, its own row first, then its batch executions'. Locks: none. Index: run_counters_pkey.
select batch_execution_id, state, tolerated, planned, planned_to, total, pending, processing, retrying, completed, failed,
       cancelled, skipped, started_at, changed_at, clock_timestamp()
from eventic.run_counters
where run_id = %s
order by batch_execution_id
