-- Purpose: which of these queues have work that is ready. Locks: none. Index: idx_workflow_status_in_flight_v2.
-- The second condition on the status is there for the planner, which matches it with the index's.
select q.name
from unnest(%s::text[]) as q (name)
where exists (
    select from dbos.workflow_status w
    where w.queue_name = q.name and w.status = 'ENQUEUED' and w.status in ('ENQUEUED', 'PENDING')
)
