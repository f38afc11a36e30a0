-- Purpose: count how often work began that was claimed before and not completed. Locks: its row.
-- Index: workflow_status_pkey. Rows made by DBOS's clients hold a JSON null in attributes.
update dbos.workflow_status
set attributes = case when jsonb_typeof(attributes) = 'object' then attributes else '{}' end
                 || jsonb_build_object('eventic.begun', coalesce((attributes ->> 'eventic.begun')::int, 0) + 1)
where workflow_uuid = %s and owner_xid = %s
returning (attributes ->> 'eventic.begun')::int
