-- Purpose: what is claimed of queues in an executor's name. Locks: none. Index: idx_workflow_status_pending.
select workflow_uuid, owner_xid, name
from dbos.workflow_status
where status = 'PENDING' and executor_id = %s and owner_xid is not null and queue_name is not null
