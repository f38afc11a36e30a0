-- Purpose: part of a write: the unique keys that records give up, and those they take.
-- Locks:   the keys, in value order. Index: record_keys_pkey; record_keys_value_key refuses a taken one.
freed as (
    delete from eventic.record_keys k
    using unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) as c (record_id, scope, name, value), ready
    where c.value is null and k.record_id = c.record_id and k.scope = c.scope and k.name = c.name
), taken as (
    insert into eventic.record_keys (record_id, scope, name, value)
    select c.record_id, c.scope, c.name, c.value
    from unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) as c (record_id, scope, name, value), ready
    where c.value is not null
    order by c.scope, c.name, c.value
    on conflict (record_id, scope, name) do update set value = excluded.value
)
