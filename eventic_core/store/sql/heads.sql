-- Purpose: the current versions of some records, tombstones too. Locks: none. Index: records_current_key.
select {columns} from eventic.records where id = any(%s::uuid[]) and superseded_at is null
