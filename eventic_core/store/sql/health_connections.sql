-- Purpose: connections in use, those of this database among them, and how many there may be. Locks: none. Index: none.
-- Of other roles' sessions only the database and the user can be seen without the right to; that is enough to count.
select count(*) filter (where a.datid is not null and a.usesysid is not null),
       count(*) filter (where a.datname = current_database() and a.usesysid is not null),
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true), '0')::int,
       (select nullif(d.datconnlimit, -1) from pg_database d where d.datname = current_database())
from pg_stat_activity a
