-- Purpose: the numbers of a run's executions that are still to be done, after one, in order; those waiting for their time
--          have a group of their own already. Locks: none. Index: records_item_executions.
select number from (
    (select (data ->> 'number')::bigint as number from eventic.records
     where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
       and data ->> 'run_id' = %(run)s::text and data ->> 'status' = 'PENDING' and (data ->> 'number')::bigint > %(after)s::bigint
     order by (data ->> 'number')::bigint limit %(count)s::bigint)
    union all
    (select (data ->> 'number')::bigint from eventic.records
     where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
       and data ->> 'run_id' = %(run)s::text and data ->> 'status' = 'RETRYING' and (data ->> 'number')::bigint > %(after)s::bigint
     order by (data ->> 'number')::bigint limit %(count)s::bigint)
    union all
    (select (data ->> 'number')::bigint from eventic.records
     where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
       and data ->> 'run_id' = %(run)s::text and data ->> 'status' = 'PROCESSING' and (data ->> 'number')::bigint > %(after)s::bigint
     order by (data ->> 'number')::bigint limit %(count)s::bigint)
) u
order by number
limit %(count)s::bigint
