-- Purpose: the application version that was launched last; it does the work that names none. Locks: none.
-- Index:   idx_application_versions_timestamp.
select version_name from dbos.application_versions order by version_timestamp desc limit 1
