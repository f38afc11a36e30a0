-- Purpose: many new records at once. Locks: the new rows. Index: as create_one.
copy eventic.records (version_id, id, version, class_type, data, tombstone, schema_version,
                      actor, reason, correlation_id, workflow_id, step_id, calls)
from stdin
