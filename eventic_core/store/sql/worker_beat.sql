-- Purpose: a worker says that it is alive and what it does, and hears what operators want. No row: it counts as lost.
-- Locks: its row. Index: workers_pkey. HOT: no index holds what changes, but for the state in the end.
update eventic.workers
set beat_at = clock_timestamp(), queues = %s, running = %s, claimed = %s, state = %s
where id = %s and state in ('alive', 'draining')
returning drain_asked_at is not null, array(select name from eventic.paused_queues)
