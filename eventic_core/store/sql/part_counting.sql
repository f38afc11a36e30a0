-- Purpose: part of a write that moves items' executions: the counters of their runs, which are never counted again.
--          `delta` says how many went to (1) and from (-1) each status, `failed_delta` with which errors. A trigger counts
--          them; another one wakes the run, which waits, when it is stopped or nothing is left to do.
-- Locks:   the runs' counters, in one order, last. Index: run_counters_pkey, run_failures_pkey.
{moved}, counted as (
    insert into eventic.run_moves (run_id, batch_execution_id, pending, processing, retrying, completed, failed, cancelled,
                                   skipped, error_types, error_counts)
    select key.run_id, key.batch_execution_id,
           coalesce(sum(n) filter (where status = 'PENDING'), 0),
           coalesce(sum(n) filter (where status = 'PROCESSING'), 0),
           coalesce(sum(n) filter (where status = 'RETRYING'), 0),
           coalesce(sum(n) filter (where status = 'COMPLETED'), 0),
           coalesce(sum(n) filter (where status = 'FAILED'), 0),
           coalesce(sum(n) filter (where status = 'CANCELLED'), 0),
           coalesce(sum(n) filter (where status = 'SKIPPED'), 0),
           (select array_agg(f.error_type order by f.error_type) from failed_delta f where f.run_id = key.run_id),
           (select array_agg(f.n order by f.error_type) from failed_delta f where f.run_id = key.run_id)
    from (
        select run_id, batch_execution_id, status, n from delta
        union all
        select run_id, '00000000-0000-0000-0000-000000000000'::uuid, status, n from delta
    ) key
    group by 1, 2
    order by 1, 2
)
