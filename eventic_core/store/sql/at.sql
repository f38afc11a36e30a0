-- Purpose: the version that was current at a moment. Locks: none. Index: records_id_version_key.
select {columns} from eventic.records
where id = %(id)s and recorded_at <= %(moment)s and (superseded_at is null or superseded_at > %(moment)s)
