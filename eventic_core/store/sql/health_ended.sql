-- Purpose: who has ended the latest runs, of which queues and application versions, and how long ago the last one was.
-- Locks:   none. Index: idx_workflow_status_completed_at.
with ended as (
    select w.executor_id, w.application_version, w.queue_name, w.completed_at
    from dbos.workflow_status w
    where w.completed_at is not null
    order by w.completed_at desc
    limit %(most)s
)
select executor_id, application_version, queue_name,
       extract(epoch from clock_timestamp())::float8 - max(completed_at) / 1000.0::float8
from ended
where executor_id is not null
group by 1, 2, 3
order by 1, 2, 3
