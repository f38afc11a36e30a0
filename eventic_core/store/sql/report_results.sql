-- Purpose: a run's items in some states with what came of them, in the order of their numbers, through a cursor.
-- Locks:   none. Index: records_item_executions, in its order for one state; several are sorted.
-- The error of an earlier attempt stays with an item that was completed later: it is not the outcome.
select (data ->> 'number')::bigint, data ->> 'item_id', data ->> 'status', (data ->> 'attempt_count')::int,
       (data -> 'result_payload')::text, case when data ->> 'status' <> 'COMPLETED' then data ->> 'error_message' end
from eventic.records
where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
  and data ->> 'run_id' = %s and data ->> 'status' {matches}
order by (data ->> 'number')::bigint, id
