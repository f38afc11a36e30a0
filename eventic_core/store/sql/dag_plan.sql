-- Purpose: what comes after what in a run of a DAG, which never changes. Locks: none. Index: dag_runs_pkey.
select plan::text from eventic.dag_runs where run_id = %s
