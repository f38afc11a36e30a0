-- Purpose: the items of a group that have no execution yet, with the ids and numbers theirs will have, in order.
-- Locks:   none. Index: records_items; records_id_version_key for each.
with item as materialized (
    select id, (data ->> 'sequence_number')::bigint as sequence_number, (data -> 'payload')::text as payload
    from eventic.records
    where class_type || '' = 'Item' and superseded_at is null and not tombstone and data ->> 'batch_id' = %(batch)s::text
      and (data ->> 'sequence_number')::bigint between %(first)s::bigint and %(last)s::bigint
)
select e.id, i.id, w.number, i.payload
from unnest(%(sequence)s::bigint[], %(numbers)s::bigint[]) as w (sequence_number, number)
join item i using (sequence_number),
lateral ({execution_id}) e
where not exists (select from eventic.records r where r.id = e.id and r.version = 0 offset 0)
order by w.number
