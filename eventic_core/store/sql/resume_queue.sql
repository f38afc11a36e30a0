-- Purpose: work of a queue is claimed again; no row if it was not paused. Locks: its row. Index: paused_queues_pkey.
delete from eventic.paused_queues where name = %s returning name
