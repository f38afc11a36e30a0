-- Purpose: which of these executions there are. Locks: none. Index: records_id_version_key.
select id from eventic.records where id = any(%s::uuid[]) and version = 0
