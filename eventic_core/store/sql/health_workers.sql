-- Purpose: who holds a slot, since when, and from where: also a worker of an older release, which does not beat.
-- Locks: none. Index: none.
select l.objid::bigint, extract(epoch from clock_timestamp() - a.backend_start)::float8,
       coalesce(host(a.client_addr), case when a.backend_start is not null then 'local' end)
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.classid::bigint = %(space)s and l.objsubid = 2 and l.granted
  and l.database = (select oid from pg_database where datname = current_database())
order by 1
