-- Purpose: the version that was current at a moment: the newest recorded by then. Locks: none.
-- Index: records_id_version_key, read backwards from the head; moments of one record rise with its versions.
select {columns} from eventic.records where id = %s and recorded_at <= %s order by version desc limit 1
