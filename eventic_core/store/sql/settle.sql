-- Purpose: a dead letter is retried, done or discarded, if nobody was quicker. Locks: its row. Index: dead_letters_pkey.
update eventic.dead_letters
set state = %s, settled_at = clock_timestamp(), settled_by = coalesce(%s, settled_by)
where id = %s and state = any(%s)
returning id
