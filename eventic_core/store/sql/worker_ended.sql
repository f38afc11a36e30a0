-- Purpose: who had these slots has them no more; and those that ended a week ago are forgotten.
-- Locks: their rows. Index: none; few rows. A process that comes back under another slot is told by its token.
with forgotten as (
    delete from eventic.workers
    where state in ('stopped', 'lost') and beat_at < clock_timestamp() - interval '7 days'
)
update eventic.workers set state = %s where (slot = any(%s) or token = %s) and state in ('alive', 'draining')
returning slot
