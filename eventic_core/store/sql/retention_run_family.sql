-- Purpose: runs with the runs their jobs started, the nearest first, and whether nothing needs them any more: all of them
--          have ended by then, nobody waits for one or names one, and no backfill that goes on looks at one. A run that
--          jobs of two runs name, as those of a fork do, goes with the last of these. Locks: none.
-- Index:   records_current_key, records_data_current, run_counters_pkey, dag_runs_pkey, waits_pkey.
with recursive family (root, id, depth) as (
    select r, r, 0 from unnest(%(roots)s::uuid[]) r
    union
    select f.root, (j.data ->> 'child_run_id')::uuid, f.depth + 1
    from family f
    join eventic.records j on j.superseded_at is null and not j.tombstone and j.class_type = 'JobRun'
     and j.data @> jsonb_build_object('dag_run_id', f.id::text)
    where j.data ->> 'child_run_id' is not null and f.depth < 1000
      and not exists (
          select from eventic.records o
          where o.superseded_at is null and not o.tombstone and o.class_type = 'JobRun'
            and o.data @> jsonb_build_object('child_run_id', j.data ->> 'child_run_id')
            and o.data ->> 'dag_run_id' <> f.id::text
      )
)
select f.root, f.id, r.class_type, coalesce((r.data ->> 'attempt')::int, 1),
       r.recorded_at < %(before)s and r.data ->> 'status' in ('COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')
       and f.id::text <> all(%(held)s::text[])
       and not exists (
           select from eventic.run_counters c
           where c.run_id = f.id and c.batch_execution_id = '00000000-0000-0000-0000-000000000000' and c.state <> 'ended'
       )
       and not exists (select from eventic.dag_runs d where d.run_id = f.id and d.state <> 'ended')
       and not exists (select from eventic.waits a where a.run_id = f.id)
       and not exists (
           select from eventic.records b
           where b.superseded_at is null
             and b.id = case when r.data -> 'properties' ->> 'backfill_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                             then (r.data -> 'properties' ->> 'backfill_id')::uuid end
             and b.data ->> 'status' in ('PENDING', 'PROCESSING', 'RETRYING')
       )
from family f
cross join lateral (  -- by the index: a join by hash would read all records there are
    select c.class_type, c.data, c.recorded_at from eventic.records c where c.id = f.id and c.superseded_at is null offset 0
) r
order by f.depth
