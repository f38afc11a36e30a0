-- Purpose: the workers, those that ended only if asked for. Locks: none. Index: none; few rows.
select id, slot, application, app_version, code_version, machine, pid, queues, running, claimed,
       case when state in ('alive', 'draining') and beat_at < clock_timestamp() - %(late)s * interval '1 second'
            then 'late' else state end,
       drain_asked_at is not null, recovered, started_at, beat_at,
       extract(epoch from clock_timestamp() - beat_at)::float8
from eventic.workers
where %(ended)s or state in ('alive', 'draining')
order by state in ('alive', 'draining') desc, beat_at desc, slot
limit %(limit)s
