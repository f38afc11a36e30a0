-- Purpose: what a run is: its name and its input. Locks: none. Index: workflow_status_pkey, workflow_input_pkey.
select s.name, i.inputs
from dbos.workflow_status s
left join dbos.workflow_input i on i.workflow_uuid = s.workflow_uuid
where s.workflow_uuid = %s
