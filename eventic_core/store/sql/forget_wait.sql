-- Purpose: work waits for a run no more. Locks: the row. Index: waits_pkey.
delete from eventic.waits where run_id = %s and work_id = %s returning 1
