-- Purpose: part of a write that moves items' executions: the counters of their runs, which are never counted again.
--          `delta` says how many went to (1) and from (-1) each status, `failed_delta` with which errors. More failed than the run tolerates stops it. A
--          trigger of the counters wakes the run, which waits, when it is stopped or nothing is left to do.
-- Locks:   the runs' counters, in one order, last. Index: run_counters_pkey, run_failures_pkey.
{moved}, change as (
    select key.run_id, key.batch_execution_id,
           coalesce(sum(n) filter (where status = 'PENDING'), 0) as pending,
           coalesce(sum(n) filter (where status = 'PROCESSING'), 0) as processing,
           coalesce(sum(n) filter (where status = 'RETRYING'), 0) as retrying,
           coalesce(sum(n) filter (where status = 'COMPLETED'), 0) as completed,
           coalesce(sum(n) filter (where status = 'FAILED'), 0) as failed,
           coalesce(sum(n) filter (where status = 'CANCELLED'), 0) as cancelled,
           coalesce(sum(n) filter (where status = 'SKIPPED'), 0) as skipped
    from (
        select run_id, batch_execution_id, status, n from delta
        union all
        select run_id, '00000000-0000-0000-0000-000000000000'::uuid, status, n from delta
    ) key
    group by 1, 2
), counter as materialized (
    select c.run_id, c.batch_execution_id
    from eventic.run_counters c
    join change using (run_id, batch_execution_id)
    order by c.run_id, c.batch_execution_id
    for no key update of c
), failure as (
    insert into eventic.run_failures as f (run_id, error_type, failed)
    select failed.run_id, failed.error_type, sum(failed.n)
    from failed_delta failed
    where exists (select from counter where counter.run_id = failed.run_id)
    group by 1, 2
    order by 1, 2
    on conflict (run_id, error_type) do update set failed = f.failed + excluded.failed
    returning f.run_id, f.failed > f.tolerated as is_over
), counted as (
    update eventic.run_counters c
    set pending = c.pending + d.pending, processing = c.processing + d.processing, retrying = c.retrying + d.retrying,
        completed = c.completed + d.completed, failed = c.failed + d.failed, cancelled = c.cancelled + d.cancelled,
        skipped = c.skipped + d.skipped, changed_at = clock_timestamp(),
        state = case
            when c.state in ('running', 'paused') and (
                c.failed + d.failed > c.tolerated
                or exists (select from failure f where f.run_id = c.run_id and f.is_over)
            ) then 'stopped'
            else c.state
        end
    from change d, counter l
    where c.run_id = d.run_id and c.batch_execution_id = d.batch_execution_id
      and l.run_id = c.run_id and l.batch_execution_id = c.batch_execution_id
)
