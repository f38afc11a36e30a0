-- Purpose: part of a write that moves items' executions: the moves, counted by the writer from what it knows they were.
delta as materialized (
    select * from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bigint[]) as d (run_id, batch_execution_id, status, n)
    where exists (select from ready)
), failed_delta as materialized (
    select * from unnest(%s::uuid[], %s::text[], %s::bigint[]) as f (run_id, error_type, n)
    where exists (select from ready)
)
