-- Purpose: how many of the numbers of a group have an execution. Locks: none. Index: records_item_executions.
select count(*)
from eventic.records
where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone and data ->> 'run_id' = %(run)s::text
  and data ->> 'status' = any('{PENDING,PROCESSING,RETRYING,COMPLETED,FAILED,CANCELLED,SKIPPED}'::text[])
  and (data ->> 'number')::bigint between %(first)s::bigint and %(last)s::bigint
