-- Purpose: which records want a unique key that a record outside of them holds. Locks: none.
-- Index:   record_keys_value_key.
select distinct w.record_id
from unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) as w (record_id, scope, name, value)
join eventic.record_keys k on k.scope = w.scope and k.name = w.name and k.value = w.value
where k.record_id <> all(%s::uuid[])
