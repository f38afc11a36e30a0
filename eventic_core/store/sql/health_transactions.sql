-- Purpose: the transactions that hold something back, oldest first, prepared ones among them. One that has written holds
--          the change feed up, wherever it is; one with a snapshot holds up vacuum in its database. Locks: none.
-- Index:   none. Those of other roles cannot be seen without the right to: their transaction ids are null then.
select a.pid, coalesce(nullif(a.application_name, ''), 'an unnamed program'), a.usename::text, a.datname::text,
       coalesce(host(a.client_addr), 'this machine'), a.state,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds,
       a.backend_xid is not null, a.datname = current_database()
from pg_stat_activity a
where a.xact_start is not null and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
  and (a.backend_xid is not null or (a.backend_xmin is not null and a.datname = current_database()))
union all
select null, 'prepared transaction ' || p.gid, p.owner::text, p.database::text, '', 'prepared',
       extract(epoch from clock_timestamp() - p.prepared)::float8, true, p.database = current_database()
from pg_prepared_xacts p
order by seconds desc
limit 20
