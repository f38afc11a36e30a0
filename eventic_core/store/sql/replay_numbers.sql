-- Purpose: the numbers of the items of a run that have begun, in order. Locks: none. Index: records_item_executions.
select (data ->> 'number')::bigint
from eventic.records
where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
  and data ->> 'run_id' = %(run)s::text and data ->> 'started_at' is not null
  and (%(numbers)s::bigint[] is null or (data ->> 'number')::bigint = any(%(numbers)s::bigint[]))
order by 1
