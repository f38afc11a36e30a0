-- Purpose: work waits for these runs no more. Locks: the rows. Index: waits_pkey.
delete from eventic.waits where run_id = any(%s) and work_id = %s returning 1
