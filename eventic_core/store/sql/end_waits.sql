-- Purpose: a run has ended: nobody waits for it any more. Locks: the rows. Index: waits_pkey.
delete from eventic.waits where run_id = %s returning work_id
