-- Purpose: failed items of a run by the class of their error, and how many are tolerated. Locks: none.
-- Index:   run_failures_pkey.
select error_type, failed, tolerated from eventic.run_failures where run_id = %s order by failed desc, error_type
