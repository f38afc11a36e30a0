-- Purpose: versions of a record below a bound, newest first. Locks: none. Index: records_id_version_key.
select {columns} from eventic.records where id = %s and version < %s order by version desc limit %s
