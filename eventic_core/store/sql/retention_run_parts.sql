-- Purpose: parts of a run, so many: executions of items, what a mapped job made to be done by it, executions of batches,
--          and runs of jobs, in this order, for the executions of batches are what leads to the batches. A batch that
--          another run works with, or that somebody loaded, is no part. Locks: none.
-- Index:   records_item_executions, records_data_current, records_current_key, records_items.
with batch as materialized (
    select distinct b.id, b.version
    from eventic.records e
    join eventic.records b on b.id = (e.data ->> 'batch_id')::uuid and b.superseded_at is null and not b.tombstone
    where e.superseded_at is null and not e.tombstone and e.class_type = 'BatchExecution'
      and e.data @> jsonb_build_object('run_id', %(run)s::text)
      and b.data -> 'payload' ?& array['dag', 'job', 'arguments']
      and starts_with(b.data ->> 'name', (b.data -> 'payload' ->> 'run_id') || ' ')
      and not exists (
          select from eventic.records o
          where o.superseded_at is null and not o.tombstone and o.class_type = 'BatchExecution'
            and o.data @> jsonb_build_object('batch_id', b.id::text) and o.data ->> 'run_id' <> %(run)s::text
      )
)
(select e.id, e.version + 1
 from eventic.records e
 where e.superseded_at is null and not e.tombstone and e.class_type || '' = 'ItemExecution'
   and e.data ->> 'run_id' = %(run)s
 limit %(limit)s)
union all
(select i.id, i.version + 1
 from batch
 cross join lateral (
     select i.id, i.version from eventic.records i
     where i.superseded_at is null and not i.tombstone and i.class_type || '' = 'Item'
       and i.data ->> 'batch_id' = batch.id::text
     limit %(limit)s
 ) i
 limit %(limit)s)
union all
(select b.id, b.version + 1 from batch b limit %(limit)s)
union all
(select b.id, b.version + 1
 from eventic.records b
 where b.superseded_at is null and not b.tombstone and b.class_type = 'BatchExecution'
   and b.data @> jsonb_build_object('run_id', %(run)s::text)
 limit %(limit)s)
union all
(select j.id, j.version + 1
 from eventic.records j
 where j.superseded_at is null and not j.tombstone and j.class_type = 'JobRun'
   and j.data @> jsonb_build_object('dag_run_id', %(run)s::text)
 limit %(limit)s)
