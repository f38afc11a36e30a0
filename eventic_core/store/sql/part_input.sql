-- Purpose: part of a write of several versions: what they are. Most are made alike (by one run, of one class, by the same
--          method), so what they share is sent once: `made` counts from 1 in the second list.
select v.version_id, v.id, v.version, m.class_type, v.data, m.tombstone, m.schema_version,
       m.actor, m.reason, m.correlation_id, m.workflow_id, v.step_id, m.calls, m.before, v.number
from unnest(%b::uuid[], %b::uuid[], %b::int[], %b::text[], %b::int[], %b::int[])
    with ordinality as v (version_id, id, version, data, step_id, made, number)
join unnest(%b::text[], %b::bool[], %b::int[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
    with ordinality as m (class_type, tombstone, schema_version, actor, reason, correlation_id, workflow_id, calls, before,
                          number)
  on m.number = v.made
