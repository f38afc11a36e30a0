-- Purpose: which DAG of which tenant some jobs are part of; those that are deleted are not found.
-- Locks:   none. Index: records_current_key.
select id::text, data ->> 'name', data ->> 'client_id', data ->> 'dag'
from eventic.records
where id = any(%(jobs)s::uuid[]) and class_type = any(%(types)s::text[]) and superseded_at is null and not tombstone
