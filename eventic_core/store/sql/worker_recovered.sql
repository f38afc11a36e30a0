-- Purpose: how many runs were taken over from whoever had each slot last. Locks: their rows. Index: none; few rows.
update eventic.workers w
set recovered = w.recovered + o.runs
from unnest(%s::text[], %s::int[]) as o (slot, runs)
where w.id = (
    select l.id from eventic.workers l where l.slot = o.slot and l.state = 'lost' order by l.beat_at desc limit 1
)
returning w.slot
