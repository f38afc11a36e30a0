-- Purpose: delayed work becomes ready when it is due by the server's clock; DBOS's own statement goes by a worker's.
-- Locks:   its rows. Index: idx_workflow_status_delayed, which a clock that may move within the statement could not use.
update dbos.workflow_status s
set status = 'ENQUEUED', deduplication_id = case when s.is_debounced then null else s.deduplication_id end
where s.status = 'DELAYED' and s.delay_until_epoch_ms <= (extract(epoch from now()) * 1000)::bigint
  and (s.application_name is null or s.application_name = %s)
