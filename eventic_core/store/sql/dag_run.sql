-- Purpose: how far a run of a DAG is. Locks: none. Index: dag_runs_pkey.
select workflow_id, dag, state, letters, refused, parameters::text, started_at, changed_at
from eventic.dag_runs
where run_id = %s
