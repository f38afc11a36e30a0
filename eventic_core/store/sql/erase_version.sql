-- Purpose: a version's document without what was erased; of no other record than the one that erase_open names.
-- Locks:   the row. Index: records_id_version_key.
update eventic.records set data = %s::jsonb where id = %s and version = %s returning 1
