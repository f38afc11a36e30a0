-- Purpose: dead letters in some states, of one handler or all, or one by its id. Locks: none.
-- Index: dead_letters_open, dead_letters_pkey.
select id, handler, class_type, record_id, version, attempts, error, failed_at, state, settled_at, settled_by
from eventic.dead_letters
where state = any(%s) and (%s::text is null or handler = %s) and (%s::uuid is null or id = %s)
order by failed_at desc, id desc
limit %s
