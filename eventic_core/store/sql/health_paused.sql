-- Purpose: the queues of which nothing is claimed, and since when. Locks: none. Index: none; few rows.
select name, extract(epoch from clock_timestamp() - paused_at)::float8, paused_by
from eventic.paused_queues
order by name
limit %(most)s
