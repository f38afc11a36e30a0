-- Purpose: ended runs that are about to go can be done again by nobody: how far they were is forgotten first. One that
--          somebody does again meanwhile keeps it. Locks: the rows. Index: run_counters_pkey, dag_runs_pkey.
with counters as (
    delete from eventic.run_counters
    where run_id = any(%(ids)s) and batch_execution_id = '00000000-0000-0000-0000-000000000000' and state = 'ended'
), dags as (
    delete from eventic.dag_runs where run_id = any(%(ids)s) and state = 'ended'
)
select 1
