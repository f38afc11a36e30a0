-- Purpose: what a claim whose reply was lost has claimed, if it was committed. Locks: none.
-- Index:   idx_workflow_status_in_flight_v2. The second condition on the status is there for the planner.
select s.workflow_uuid, s.name, s.recovery_attempts, i.inputs, s.workflow_deadline_epoch_ms
from dbos.workflow_status s
left join dbos.workflow_input i on i.workflow_uuid = s.workflow_uuid
where s.queue_name = %s and s.status = 'PENDING' and s.status in ('ENQUEUED', 'PENDING') and s.owner_xid = %s
order by s.priority, s.created_at, s.workflow_uuid
