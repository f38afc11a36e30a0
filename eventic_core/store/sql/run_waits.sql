-- Purpose: how many runs of each queue wait for what no worker has, the most first. Locks: none.
-- Index:   idx_workflow_status_attributes.
select queue_name, attributes->>'eventic.waiting_for', count(*)
from dbos.workflow_status
where attributes ? 'eventic.waiting_for' and attributes->>'eventic.waiting_for' is not null
  and status in ('ENQUEUED', 'DELAYED') and queue_name is not null
group by 1, 2
order by 1, 3 desc, 2
