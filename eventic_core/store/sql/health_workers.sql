-- Purpose: who holds a slot, since when, and when the last worker on the same machine asked for something: each asks
--          at least once a second, under the name that DBOS gives its sessions. Locks: none. Index: none.
select l.objid::bigint, extract(epoch from clock_timestamp() - a.backend_start)::float8,
       coalesce(host(a.client_addr), case when a.backend_start is not null then 'local' end),
       (select extract(epoch from clock_timestamp() - max(
                   case when b.state = 'active' then clock_timestamp() else b.state_change end))::float8
        from pg_stat_activity b
        where b.datid = a.datid and b.usesysid = a.usesysid and b.application_name = 'dbos_transact'
          and b.client_addr is not distinct from a.client_addr)
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.classid::bigint = %(space)s and l.objsubid = 2 and l.granted
  and l.database = (select oid from pg_database where datname = current_database())
order by 1
