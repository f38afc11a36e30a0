-- Purpose: executors with unfinished work, of whatever version of the application. Locks: none.
-- Index:   idx_workflow_status_pending.
select distinct executor_id
from dbos.workflow_status
where status = 'PENDING' and executor_id is not null
