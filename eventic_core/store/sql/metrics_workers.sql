-- Purpose: the workers that live, by the server's clock, and what each has in hand. Locks: none.
-- Index:   workers_slot's few rows, of which there are as many as workers.
select slot, app_version, case when beat_at < clock_timestamp() - %(late)s * interval '1 second' then 'late' else state end,
       running, claimed, extract(epoch from clock_timestamp() - beat_at)::float8
from eventic.workers
where state in ('alive', 'draining')
order by slot
limit %(most)s
