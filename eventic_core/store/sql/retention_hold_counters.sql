-- Purpose: runs that are about to go are done again by nobody; before their records, as whoever steers one.
-- Locks:   the rows. Index: run_counters_pkey, dag_runs_pkey.
with counters as materialized (
    select from eventic.run_counters
    where run_id = any(%(ids)s) and batch_execution_id = '00000000-0000-0000-0000-000000000000'
    order by run_id
    for update
), dags as materialized (
    select from eventic.dag_runs where run_id = any(%(ids)s) order by run_id for update
)
select (select count(*) from counters), (select count(*) from dags)
