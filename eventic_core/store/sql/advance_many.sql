-- Purpose: note that a handler is done with version 0 of several records, in id order so that two do not deadlock.
-- Index:   handled_pkey. Fewer rows than records: somebody else was there first, and nothing may be committed.
insert into eventic.handled (handler, record_id, version)
select %s, id, 0 from unnest(%s::uuid[]) as w (id) order by id
on conflict (handler, record_id) do nothing
returning 1
