-- Purpose: hold a run to its state until the transaction ends; a statement of its own, so that the next one sees what those
--          who held it have committed. Locks: the run's counters, shared or alone. Index: run_counters_pkey.
select workflow_id, state from eventic.run_counters
where run_id = %s and batch_execution_id = '00000000-0000-0000-0000-000000000000'
for {strength}
