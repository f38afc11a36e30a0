-- Purpose: what workers say of themselves, and how long ago by the server's clock. Locks: none. Index: workers_slot.
select slot, extract(epoch from clock_timestamp() - started_at)::float8, machine,
       extract(epoch from clock_timestamp() - beat_at)::float8, app_version, queues, state = 'draining'
from eventic.workers
where state in ('alive', 'draining')
order by slot
limit %(most)s
