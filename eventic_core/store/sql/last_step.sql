-- Purpose: how far earlier executions of a run came, and when it was created. Locks: none.
-- Index: workflow_status_pkey, operation_outputs_pkey.
select s.created_at, (select max(function_id) from dbos.operation_outputs o where o.workflow_uuid = s.workflow_uuid)
from dbos.workflow_status s
where s.workflow_uuid = %s
