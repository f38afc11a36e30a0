-- Purpose: how many items batches have. Locks: none. Index: records_items, index only where the map allows.
select data ->> 'batch_id', count(*)
from eventic.records
where class_type || '' = 'Item' and superseded_at is null and not tombstone and data ->> 'batch_id' = any(%s)
group by 1
