-- Purpose: a worker that is late counts as lost from now on; no row if it has beaten meanwhile. Its own next beat finds
--          no row. Beside it whether another process has its slot by now: one of a release that does not beat.
-- Locks:   its row. Index: workers_pkey.
update eventic.workers w
set state = 'lost'
where w.id = %(id)s
  and (w.state = 'lost'
       or greatest(w.beat_at, pg_postmaster_start_time()) < clock_timestamp() - %(seconds)s * interval '1 second')
returning exists (
    select from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.classid::bigint = %(space)s and l.objsubid = 2 and l.granted
      and l.database = (select oid from pg_database where datname = current_database())
      and w.slot = 'worker-' || l.objid::bigint and a.application_name not like '%% ' || w.token
)
