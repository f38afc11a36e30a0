-- Purpose: nothing is claimed of a queue from each worker's next beat on; no row if it is so already.
-- Locks: its row. Index: paused_queues_pkey.
insert into eventic.paused_queues (name, paused_by, reason) values (%s, %s, %s)
on conflict (name) do nothing
returning name
