-- Purpose: why did a write in a run write nothing? Whether the run is still this execution's, and the step's row.
-- Locks: none. Index: workflow_status_pkey, operation_outputs_pkey.
select s.owner_xid is not distinct from %s, o.function_name, o.output, o.error, o.serialization
from dbos.workflow_status s
left join dbos.operation_outputs o on o.workflow_uuid = s.workflow_uuid and o.function_id = %s
where s.workflow_uuid = %s
