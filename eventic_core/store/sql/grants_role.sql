-- Purpose: whether a role is there, whether it may do everything as it is, and whether there is something to grant.
-- Locks:   none. Index: pg_authid_rolname_index.
select (select count(*) from pg_roles where rolname = :role) = 1,
       coalesce((select rolsuper from pg_roles where rolname = :role), false)
       or exists (
           select from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where n.nspname in ('eventic', 'dbos') and c.relkind = 'r'
             and pg_has_role((select oid from pg_roles where rolname = :role), c.relowner, 'member')
       ),
       to_regclass('eventic.records') is not null and to_regclass('dbos.workflow_status') is not null
