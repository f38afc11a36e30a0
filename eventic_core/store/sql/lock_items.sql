-- Purpose: hold the executions of a run that are still to be done, before its counters: who moves some of them holds them
--          in this order too. Locks: their current rows in id order. Index: records_item_executions.
select count(*)
from (
    select 1
    from eventic.records
    where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
      and data ->> 'run_id' = %s and data ->> 'status' = any('{PENDING,PROCESSING,RETRYING}'::text[])
    order by id
    for update
) held
