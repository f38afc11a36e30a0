-- Purpose: the outcome of a run. Locks: none. Index: workflow_status_pkey, workflow_output_pkey.
select s.status, s.serialization, o.output, o.error
from dbos.workflow_status s
left join dbos.workflow_output o on o.workflow_uuid = s.workflow_uuid
where s.workflow_uuid = %s
