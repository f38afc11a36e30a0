-- Purpose: rows that are alive and dead in the tables that change most, by Postgres' own count, and what was done about
--          it. Locks: none. Index: pg_class' own.
select t.schemaname || '.' || t.relname, t.n_live_tup, t.n_dead_tup,
       extract(epoch from clock_timestamp() - greatest(t.last_autovacuum, t.last_vacuum))::float8,
       coalesce(c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off'], false)
from pg_stat_user_tables t
join pg_class c on c.oid = t.relid
where (t.schemaname, t.relname) in (('eventic', 'records'), ('dbos', 'workflow_status'), ('dbos', 'operation_outputs'))
order by 1
