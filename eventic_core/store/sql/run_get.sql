-- Purpose: one run with its input, and its result or error. Locks: none.
-- Index:   workflow_status_pkey, workflow_input_pkey, workflow_output_pkey.
-- A payload was a column of the run itself before DBOS 3.
select {columns}, ws.serialization, coalesce(i.inputs, ws.inputs), coalesce(o.output, ws.output),
       coalesce(o.error, ws.error)
from dbos.workflow_status ws
left join dbos.workflow_input i using (workflow_uuid)
left join dbos.workflow_output o using (workflow_uuid)
where ws.workflow_uuid = %s
