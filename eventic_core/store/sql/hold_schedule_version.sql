-- Purpose: whether a version of a schedule is the current one; if so it stays that until the transaction ends, so that
--          whoever pauses, changes or deletes the schedule waits, and afterwards nothing more is started by what it was.
-- Locks:   its row, shared. Index: records_id_version_key.
select 1 from eventic.records
where id = %s and version = %s and superseded_at is null and not tombstone
for share
