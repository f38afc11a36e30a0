-- Purpose: the sequence numbers of the next items of a batch, in order. Locks: none. Index: records_items.
select (data ->> 'sequence_number')::bigint
from eventic.records
where class_type || '' = 'Item' and superseded_at is null and not tombstone
  and data ->> 'batch_id' = %(batch)s::text and (data ->> 'sequence_number')::bigint > %(after)s::bigint
order by (data ->> 'sequence_number')::bigint
limit %(count)s::bigint
