-- Purpose: the counters of batches and the failures of runs whose own counters are gone. A statement of its own after
--          retention_close_runs, so that it sees which are. Locks: the rows. Index: run_counters_pkey.
with gone as materialized (
    select g.id from unnest(%(ids)s::uuid[]) g (id)
    where not exists (
        select from eventic.run_counters c
        where c.run_id = g.id and c.batch_execution_id = '00000000-0000-0000-0000-000000000000'
    )
), counters as (
    delete from eventic.run_counters c using gone where c.run_id = gone.id
), failures as (
    delete from eventic.run_failures f using gone where f.run_id = gone.id
)
select 1
