-- Purpose: claim the next pieces of a queue's ready work, with their input: what DBOS's own claim does, in one statement.
-- Locks:   the rows claimed; rows that somebody else is about to claim are passed over.
-- Index:   idx_workflow_status_in_flight_v2. The second condition on the status is there for the planner.
with next as materialized (
    select workflow_uuid
    from dbos.workflow_status
    where queue_name = %(queue)s and status = 'ENQUEUED' and status in ('ENQUEUED', 'PENDING') and application_version = %(version)s
    order by priority, created_at
    limit %(count)s
    for update skip locked
), {claimed}
