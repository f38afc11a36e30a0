-- Purpose: the queues of which nothing is claimed, since when, by whom and why. Locks: none. Index: paused_queues_pkey.
select name, paused_at, paused_by, reason from eventic.paused_queues order by name
