-- Purpose: ended runs go, with their input, outcome and steps; messages, events and streams go by their foreign keys.
--          After retention_hold_workflows, so that nobody begins one anew. Locks: the rows.
-- Index:   workflow_status_pkey, workflow_input_pkey, workflow_output_pkey, operation_outputs_pkey.
with gone as (
    delete from dbos.workflow_status w
    where w.workflow_uuid = any(%s) and w.status not in ('ENQUEUED', 'PENDING', 'DELAYED')
    returning w.workflow_uuid
), inputs as (
    delete from dbos.workflow_input i where i.workflow_uuid = any(array(select workflow_uuid from gone))
), outputs as (
    delete from dbos.workflow_output o where o.workflow_uuid = any(array(select workflow_uuid from gone))
), steps as (
    delete from dbos.operation_outputs s where s.workflow_uuid = any(array(select workflow_uuid from gone))
)
select workflow_uuid from gone
