-- Purpose: versions of applications go of which no run is kept and that no worker has; the one that was launched last
--          stays, for it does the work that names none. Locks: the rows. Index: none, the runs are read whole.
delete from dbos.application_versions v
where v.version_timestamp < %s
  and v.version_timestamp < (select max(version_timestamp) from dbos.application_versions)
  and not exists (select from eventic.workers e where e.app_version = v.version_name)
  and not exists (select from dbos.workflow_status w where w.application_version = v.version_name)
returning 1
