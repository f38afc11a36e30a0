-- Purpose: end the sessions of a process that hangs, with what they hold locked. Locks: none. Index: none.
select pg_terminate_backend(pid)
from pg_stat_activity
where application_name like '%% ' || %s and datname = current_database() and pid <> pg_backend_pid()
