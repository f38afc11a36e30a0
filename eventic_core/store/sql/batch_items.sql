-- Purpose: some items of a batch, with their payloads, in order. Locks: none. Index: records_items.
select id, (data ->> 'sequence_number')::bigint, (data -> 'payload')::text
from eventic.records
where class_type || '' = 'Item' and superseded_at is null and not tombstone and data ->> 'batch_id' = %s::text
  and (data ->> 'sequence_number')::bigint between %s::bigint and %s::bigint
order by (data ->> 'sequence_number')::bigint
