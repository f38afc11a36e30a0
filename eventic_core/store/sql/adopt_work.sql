-- Purpose: work that sleeps goes on with workers of another application version. Locks: its row.
-- Index:   workflow_status_pkey.
update dbos.workflow_status set application_version = %s
where workflow_uuid = %s and status in ('DELAYED', 'ENQUEUED') and application_version <> %s
returning 1
