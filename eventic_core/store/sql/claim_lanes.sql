-- Purpose: as claim, of a queue with lanes: the first piece of each lane of which none is being done.
-- Locks:   the rows claimed. Index: idx_workflow_status_partition_dequeue_v3, by which it jumps from lane to lane.
-- The first of a lane is chosen before it is locked: to pass over a locked one would be to do a later one first.
with recursive lanes as (
    select min(queue_partition_key) as lane
    from dbos.workflow_status
    where queue_name = %(queue)s and status = 'ENQUEUED' and status in ('ENQUEUED', 'PENDING')
      and queue_partition_key is not null
    union all
    select (
        select min(w.queue_partition_key)
        from dbos.workflow_status w
        where w.queue_name = %(queue)s and w.status = 'ENQUEUED' and w.status in ('ENQUEUED', 'PENDING')
          and w.queue_partition_key > lanes.lane
    )
    from lanes
    where lanes.lane is not null
), first as materialized (
    select head.workflow_uuid
    from lanes, lateral (
        select w.workflow_uuid
        from dbos.workflow_status w
        where w.queue_name = %(queue)s and w.status = 'ENQUEUED' and w.status in ('ENQUEUED', 'PENDING')
          and w.queue_partition_key = lanes.lane and w.application_version = %(version)s
        order by w.priority, w.created_at, w.workflow_uuid
        limit 1
    ) head
    where lanes.lane is not null and not exists (
        select from dbos.workflow_status p
        where p.queue_name = %(queue)s and p.status = 'PENDING' and p.status in ('ENQUEUED', 'PENDING')
          and p.queue_partition_key = lanes.lane
    )
    order by random()
    limit %(count)s
), next as materialized (
    select w.workflow_uuid
    from dbos.workflow_status w
    join first on first.workflow_uuid = w.workflow_uuid
    where w.status = 'ENQUEUED' and w.queue_name = %(queue)s
    for update of w skip locked
), {claimed}
