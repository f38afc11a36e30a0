-- Purpose: one version of a record. Locks: none. Index: records_id_version_key.
select {columns} from eventic.records where id = %s and version = %s
