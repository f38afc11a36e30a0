-- Purpose: the versions of some records that were current at a moment. Locks: none. Index: records_id_version_key.
select v.*
from unnest(%s::uuid[]) as w (wanted_id)
cross join lateral (
    select {columns} from eventic.records
    where id = w.wanted_id and recorded_at <= %s
    order by version desc limit 1
) v
