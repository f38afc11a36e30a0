-- Purpose: part of what retention reads: the unfinished runs. In two parts, for each has an index and both have none.
-- Locks:   none. Index: idx_workflow_status_in_flight_v2, idx_workflow_status_delayed.
open as materialized (
    select w.workflow_uuid, w.name, w.created_at from dbos.workflow_status w where w.status in ('ENQUEUED', 'PENDING')
    union all
    select w.workflow_uuid, w.name, w.created_at from dbos.workflow_status w where w.status = 'DELAYED'
)
