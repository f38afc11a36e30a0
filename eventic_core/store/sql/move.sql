-- Purpose: a process goes on under another slot with the runs it holds. Locks: their rows. Index: workflow_status_pkey.
update dbos.workflow_status
set executor_id = %s
from unnest(%s::text[], %s::text[]) as o (id, owner)
where workflow_uuid = o.id and owner_xid = o.owner and status = 'PENDING'
returning workflow_uuid
