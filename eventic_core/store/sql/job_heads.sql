-- Purpose: the current versions of some job runs. Locks: none. Index: records_current_key.
select id, version, data::text from eventic.records where id = any(%s) and superseded_at is null and not tombstone
