-- Purpose: the columns every read gives, in the order of StoredVersion and Stamp.
id, version, class_type, data::text, version_id, actor, reason, correlation_id, workflow_id, step_id, schema_version,
recorded_at, superseded_at, xid::text::bigint as xid_number, position, tombstone, calls
