-- Purpose: a run's items by status and attempts, with the moments of the first start and the last end.
-- Locks:   none. Index: records_item_executions.
select data ->> 'status', coalesce((data ->> 'attempt_count')::int, 0), count(*),
       min((data ->> 'started_at')::timestamptz), max((data ->> 'finished_at')::timestamptz)
from eventic.records
where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone and data ->> 'run_id' = %s
group by 1, 2
order by 1, 2
