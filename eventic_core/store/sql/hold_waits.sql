-- Purpose: which of these runs work still waits for; none of them tells that it ends until the transaction does.
-- Locks:   the rows. Index: waits_pkey.
select run_id from eventic.waits where run_id = any(%s) and work_id = %s for update
