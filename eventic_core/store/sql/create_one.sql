-- Purpose: version 0 of a new record.
-- Locks:   the new row only. Index: records_pkey, records_id_version_key, records_current_key refuse a taken id.
-- Writes nothing if the list of handlers is not the one the writer goes by. The parts in braces are as in append_many.
with {gate}ready as materialized (
    select 1 as yes where {generation}{gated}
){also}
insert into eventic.records (version_id, id, version, class_type, data, tombstone, schema_version,
                             actor, reason, correlation_id, workflow_id, step_id, calls)
select %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s, %s, %s, %s, %s
from ready
returning recorded_at, xid::text, position
