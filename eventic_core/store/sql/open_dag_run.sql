-- Purpose: a run of a DAG begins. Locks: the new row. Index: dag_runs_pkey.
insert into eventic.dag_runs (run_id, workflow_id, dag, state, letters, refused, plan, parameters)
values (%s, %s, %s, 'running', %s, '{}', %s::jsonb, %s::jsonb)
returning 1
