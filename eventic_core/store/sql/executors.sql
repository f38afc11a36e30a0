-- Purpose: executors with unfinished work of this application version. Locks: none.
-- Index:   idx_workflow_status_pending.
select distinct executor_id
from dbos.workflow_status
where status = 'PENDING' and executor_id is not null and application_version = %s
