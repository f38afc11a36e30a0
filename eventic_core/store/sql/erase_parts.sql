-- Purpose: versions of items, of their executions, of jobs' runs and of runs that hold one of some texts, or are jobs'
--          runs of some runs; and the run that is unfinished and works with each. Locks: none.
-- Index:   none, all versions of these classes are read; records_data_current for the run.
select r.id, r.version, r.data::text, r.class_type, coalesce(r.data ->> 'dag_run_id', r.data ->> 'run_id'),
       case r.class_type when 'Item' then (
                select b.data ->> 'run_id' from eventic.records b
                where b.superseded_at is null and not b.tombstone and b.class_type = 'BatchExecution'
                  and b.data @> jsonb_build_object('batch_id', r.data ->> 'batch_id')
                  and b.data ->> 'status' in ('PENDING', 'PROCESSING', 'RETRYING')
                limit 1)
            else (
                select coalesce(h.data ->> 'dag_run_id', h.data ->> 'run_id', h.id::text) from eventic.records h
                where h.id in (r.id, (r.data ->> 'dag_run_id')::uuid, (r.data ->> 'run_id')::uuid)
                  and h.superseded_at is null and h.data ->> 'status' in ('PENDING', 'PROCESSING', 'RETRYING')
                limit 1)
       end
from eventic.records r
where r.class_type in ('Item', 'ItemExecution', 'JobRun', 'Run', 'DagRun')
  and (exists (select from unnest(%(needles)s::text[]) n where position(n in r.data::text) > 0)
       or r.class_type = 'JobRun' and r.data ->> 'dag_run_id' = any(%(runs)s::text[]))
order by r.id, r.version
