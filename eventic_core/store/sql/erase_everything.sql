-- Purpose: an empty database for the next test, whichever of the tables there are. Locks: every table, exclusively.
-- The list of handlers keeps its row; its number moves on, so that no process goes by the old list.
do $$
declare
    names text;
begin
    perform set_config('eventic.retention', 'on', true);
    select string_agg(format('%I.%I', schemaname, tablename), ', ') into names
    from pg_tables
    where schemaname = 'eventic' and tablename not in ('eventic_version', 'handlers_generation')
       or schemaname = 'dbos' and tablename not in ('dbos_migrations', 'application_versions', 'dbos_datasource_migrations');
    execute 'truncate ' || names;
    update eventic.handlers_generation set generation = generation + 1;
end $$
