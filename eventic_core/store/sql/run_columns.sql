-- Purpose: the columns every read of a run gives, in the order of Run's fields. DBOS keeps moments in milliseconds
-- since the epoch, and forgets a cancelled run's queue, which is then an attribute of ours.
ws.workflow_uuid, ws.name, ws.status, coalesce(ws.queue_name, ws.attributes->>'eventic.queue'), ws.queue_partition_key,
ws.application_name, ws.application_version, ws.executor_id, coalesce(ws.recovery_attempts, 0),
to_timestamp(ws.created_at / 1000.0), to_timestamp(ws.started_at_epoch_ms / 1000.0),
to_timestamp(ws.completed_at / 1000.0), case when ws.status in ('DELAYED', 'ENQUEUED') then ws.attributes->>'eventic.waiting_for' end, ws.forked_from, ws.parent_workflow_id
