-- Purpose: note that a handler is done with a version; nothing if somebody else was there first.
-- Locks:   the row of handler and record. Index: handled_pkey.
insert into eventic.handled (handler, record_id, version)
values (%s, %s, %s)
on conflict (handler, record_id) do update
set version = excluded.version, attempts = 0, due_at = null
where handled.version = %s
returning 1
