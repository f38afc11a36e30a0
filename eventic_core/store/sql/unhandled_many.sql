-- Purpose: which of these new records a handler has not handled yet, as they were created. Locks: none.
-- Index: handled_pkey, records_id_version_key.
select {columns}
from eventic.records r
where id = any(%s) and version = 0
  and not exists (select from eventic.handled h where h.handler = %s and h.record_id = r.id)
order by position
