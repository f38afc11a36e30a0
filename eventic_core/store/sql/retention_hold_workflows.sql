-- Purpose: ended runs that are about to go are begun anew by nobody; gives those that have been already.
-- Locks:   their rows. Index: workflow_status_pkey.
with held as materialized (
    select w.workflow_uuid, w.status from dbos.workflow_status w
    where w.workflow_uuid = any(%s)
    order by w.workflow_uuid
    for update
)
select workflow_uuid from held where status in ('ENQUEUED', 'PENDING', 'DELAYED')
