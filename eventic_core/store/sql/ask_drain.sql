-- Purpose: ask workers to end; each hears it with its next beat. Locks: their rows. Index: workers_slot.
update eventic.workers
set drain_asked_at = coalesce(drain_asked_at, clock_timestamp())
where slot = any(%s) and state in ('alive', 'draining')
returning slot
