-- Purpose: ended runs that no other run of the table started, a page of them: the roots a rule looks at.
-- Locks:   none. Index: workflow_status_created_at_index, workflow_status_pkey.
-- A run that was enqueued in a workflow is named after the step that did it: <parent>-<step>, six digits.
select w.workflow_uuid, w.created_at
from dbos.workflow_status w
where w.status = any(%(statuses)s) and w.created_at < %(before)s
  and coalesce(w.completed_at, w.updated_at) < %(before)s
  and (w.created_at, w.workflow_uuid) > (%(after_at)s, %(after)s)
  and (%(name)s::text is null or w.name = %(name)s)
  and not exists (
      select from dbos.workflow_status p
      where p.workflow_uuid = coalesce(w.parent_workflow_id, substring(w.workflow_uuid from '^(.+)-[0-9]{6}$'))
  )
order by w.created_at, w.workflow_uuid
limit %(limit)s
