-- Purpose: free unique keys of records that are about to take others, perhaps each other's.
-- Locks:   the records' current rows in id order, as the write that follows in the transaction; then the keys.
-- Index:   records_current_key, record_keys_pkey.
with head as materialized (
    select id from eventic.records where id = any(%s::uuid[]) and superseded_at is null order by id for update
)
delete from eventic.record_keys k
using head, unnest(%s::uuid[], %s::text[], %s::text[]) as c (record_id, scope, name)
where c.record_id = head.id and k.record_id = c.record_id and k.scope = c.scope and k.name = c.name
returning k.record_id
