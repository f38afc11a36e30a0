-- Purpose: note how far a batch execution, or a run that is redriven, is planned, if nobody else did meanwhile.
-- Locks:   the counters. Index: run_counters_pkey.
update eventic.run_counters
set planned = %(planned)s, planned_to = %(to)s
where run_id = %(run)s and batch_execution_id = %(batch_execution)s and planned = %(before)s
returning 1
