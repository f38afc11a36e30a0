-- Purpose: part of a claim: the rows become this executor's, in the columns and with the values of DBOS's own claim.
claimed as (
    update dbos.workflow_status s
    set status = 'PENDING', owner_xid = %(owner)s, executor_id = %(executor)s, application_version = %(version)s,
        application_name = %(application)s, rate_limited = false, recovery_attempts = s.recovery_attempts + 1,
        started_at_epoch_ms = (extract(epoch from now()) * 1000)::bigint,
        updated_at = (extract(epoch from now()) * 1000)::bigint,
        workflow_deadline_epoch_ms = coalesce(
            s.workflow_deadline_epoch_ms, (extract(epoch from now()) * 1000)::bigint + s.workflow_timeout_ms)
    from next
    where s.workflow_uuid = next.workflow_uuid and s.status = 'ENQUEUED'
    returning s.workflow_uuid, s.name, s.recovery_attempts, s.workflow_deadline_epoch_ms, s.priority, s.created_at
)
select c.workflow_uuid, c.name, c.recovery_attempts, i.inputs, c.workflow_deadline_epoch_ms
from claimed c
left join dbos.workflow_input i on i.workflow_uuid = c.workflow_uuid
order by c.priority, c.created_at, c.workflow_uuid
