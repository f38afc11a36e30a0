-- Purpose: the items of a run, each with what it can be recognised by in another run. Read through a cursor.
-- Locks:   none. Index: records_item_executions; records_current_key for the items.
select e.id, (e.data ->> 'number')::int, e.data ->> 'item_id',
       array_position(%(batch_executions)s::text[], e.data ->> 'batch_execution_id'),
       (i.data ->> 'sequence_number')::bigint,
       case when %(payloads)s then (i.data -> 'payload')::text end
from eventic.records e
left join eventic.records i on i.id = (e.data ->> 'item_id')::uuid and i.superseded_at is null
where e.class_type || '' = 'ItemExecution' and e.superseded_at is null and not e.tombstone
  and e.data ->> 'run_id' = %(run_id)s
