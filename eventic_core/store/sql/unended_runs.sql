-- Purpose: the runs of a schedule that have not ended, and none of them does until the transaction ends: those that it
--          started itself or by hand, or those of one backfill.
-- Locks:   their rows of dag_runs, before those of records. Index: records_schedule_runs, dag_runs_pkey.
select d.run_id
from eventic.records r
join eventic.dag_runs d on d.run_id = r.id
where r.superseded_at is null and not r.tombstone and r.class_type || '' = 'DagRun'
  and r.data ->> 'schedule_id' = %(schedule)s and r.data ->> 'status' in ('PENDING', 'PROCESSING', 'RETRYING')
  and r.data -> 'properties' ->> 'backfill_id' is not distinct from %(backfill)s
  and d.state <> 'ended'
order by d.run_id
for no key update of d
