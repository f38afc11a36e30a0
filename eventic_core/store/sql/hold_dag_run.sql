-- Purpose: how far a run of a DAG is, held until the transaction ends: who moves its jobs does so one after the other.
-- Locks:   its row, before those of records. Index: dag_runs_pkey.
select state, letters, refused, workflow_id from eventic.dag_runs where run_id = %s for no key update
