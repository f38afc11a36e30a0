-- Purpose: the steps of a run in order, with their payloads. Locks: none. Index: operation_outputs_pkey.
select function_id, function_name, to_timestamp(started_at_epoch_ms / 1000.0),
       to_timestamp(completed_at_epoch_ms / 1000.0), child_workflow_id, serialization, null, output, error
from dbos.operation_outputs
where workflow_uuid = %s
order by function_id
