-- Purpose: of some runs, those that have ended are begun anew by nobody until the transaction ends. Locks: their rows,
--          shared. Index: workflow_status_pkey.
select 1 from dbos.workflow_status w
where w.workflow_uuid = any(%s) and w.status not in ('ENQUEUED', 'PENDING', 'DELAYED')
order by w.workflow_uuid
for share
