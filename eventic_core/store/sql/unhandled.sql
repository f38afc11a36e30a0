-- Purpose: how far a handler came with a record, and the next versions. Locks: none.
-- Index: handled_pkey, records_id_version_key.
select h.version, coalesce(h.attempts, 0), coalesce(h.due_at > clock_timestamp(), false), r.*
from (select 1) one
left join eventic.handled h on h.handler = %s and h.record_id = %s
left join lateral (
    select {columns}
    from eventic.records
    where id = %s and version > coalesce(h.version, -1) and xid >= %s::text::xid8
    order by version
    limit %s
) r on true
