-- Purpose: another attempt at a dead letter failed. Locks: its row. Index: dead_letters_pkey.
update eventic.dead_letters
set state = 'open', attempts = attempts + 1, error = %s::jsonb, failed_at = clock_timestamp()
where id = %s and state = 'retried'
returning id
