-- Purpose: the current version of a record, a tombstone too. Locks: none. Index: records_current_key.
select {columns} from eventic.records where id = %s and superseded_at is null
