-- Purpose: the claims of an executor's unfinished work. Locks: none. Index: idx_workflow_status_pending.
select distinct owner_xid
from dbos.workflow_status
where status = 'PENDING' and executor_id = %s and owner_xid is not null
