-- Purpose: how many transactions the change feed stands behind the newest, and how many sessions of clients there are
--          of which this role cannot see what they do. Locks: none. Index: none.
select pg_snapshot_xmax(s.now)::text::bigint - pg_snapshot_xmin(s.now)::text::bigint,
       (select count(*)::int from pg_stat_activity a
        where a.datid is not null and a.usesysid is not null and a.backend_type is null)
from (select pg_current_snapshot() as now) s
