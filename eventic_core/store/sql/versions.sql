-- Purpose: exactly these versions, in the order asked for. Locks: none. Index: records_id_version_key.
select {columns}
from eventic.records
join unnest(%s::uuid[], %s::int[]) with ordinality as w (wanted_id, wanted_version, place)
    on id = wanted_id and version = wanted_version
order by place
