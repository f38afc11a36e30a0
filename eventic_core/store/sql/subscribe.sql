-- Purpose: subscribe handlers, from the versions on that transactions running now may still write; known ones stay.
-- Locks:   the row of the generation: one process at a time changes the list. Index: handlers_pkey.
with added as (
    insert into eventic.handlers (name, class_type, kind, method, since_xid)
    select name, class_type, kind, method, case when backfill then '0'::xid8 else pg_snapshot_xmin(pg_current_snapshot()) end
    from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bool[])
        as w (name, class_type, kind, method, backfill)
    on conflict do nothing
    returning 1
)
update eventic.handlers_generation
set generation = generation + 1
where exists (select from added)
