-- Purpose: part of a write in a run: is the run still this execution's, and is the step not done yet?
-- Locks:   the run's row, so that nobody takes the run over before the write is committed.
-- Index:   workflow_status_pkey, operation_outputs_pkey.
owner as materialized (
    select 1 from dbos.workflow_status where workflow_uuid = %s and owner_xid = %s for no key update
), known as materialized (
    select 1 from dbos.operation_outputs where workflow_uuid = %s and function_id = %s
),
