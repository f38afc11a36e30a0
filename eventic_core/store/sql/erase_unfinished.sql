-- Purpose: which of some runs are unfinished. After erase_hold_ended, so that none of the others begins anew.
-- Locks:   none. Index: workflow_status_pkey.
select w.workflow_uuid
from dbos.workflow_status w
where w.workflow_uuid = any(%s) and w.status in ('ENQUEUED', 'PENDING', 'DELAYED')
