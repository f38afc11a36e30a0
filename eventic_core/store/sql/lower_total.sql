-- Purpose: a batch has fewer items than were counted when its run started: some were deleted since. Locks: the counters.
-- Index:   run_counters_pkey.
update eventic.run_counters
set total = total - %s, pending = pending - %s
where run_id = %s and batch_execution_id = any(%s)
returning 1
