-- Purpose: does the run still belong to this execution? Locks: its row, until the transaction ends.
-- Index: workflow_status_pkey.
select 1 from dbos.workflow_status where workflow_uuid = %s and owner_xid = %s for no key update
