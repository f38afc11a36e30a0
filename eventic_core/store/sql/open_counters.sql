-- Purpose: the counters of a new run and its batch executions, everything still pending. Index: run_counters_pkey.
insert into eventic.run_counters (run_id, batch_execution_id, workflow_id, state, tolerated, total, pending)
select %s, b.id, case when b.id = '00000000-0000-0000-0000-000000000000' then %s end, 'running', %s, b.total, b.total
from unnest(%s::uuid[], %s::bigint[]) as b (id, total)
returning 1
