-- Purpose: how many items of a run may fail with errors of some classes. Locks: its rows. Index: run_failures_pkey.
with input as (
    select * from unnest(%s::text[], %s::bigint[]) as i (error_type, tolerated)
)
insert into eventic.run_failures (run_id, error_type, tolerated)
select %s, error_type, tolerated from input
on conflict (run_id, error_type) do update set tolerated = excluded.tolerated
returning 1
