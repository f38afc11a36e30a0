-- Purpose: the unfinished executions of a group, with their items' payloads, in order.
-- Locks:   none. Index: records_item_executions, records_current_key.
select e.id, e.version, e.data::text, i.data -> 'payload'
from eventic.records e
join eventic.records i on i.id = (e.data ->> 'item_id')::uuid and i.superseded_at is null
where e.class_type || '' = 'ItemExecution' and e.superseded_at is null and not e.tombstone
  and e.data ->> 'run_id' = %(run)s::text and e.data ->> 'status' = any('{PENDING,PROCESSING,RETRYING}'::text[])
  and (e.data ->> 'number')::bigint between %(first)s::bigint and %(last)s::bigint
  and (%(only)s::bigint[] is null or (e.data ->> 'number')::bigint = any(%(only)s::bigint[]))
order by (e.data ->> 'number')::bigint
