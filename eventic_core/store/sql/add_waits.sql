-- Purpose: work waits for runs to end. Locks: the new rows. Index: waits_pkey.
insert into eventic.waits (run_id, work_id)
select run_id, %s from unnest(%s::uuid[]) as r (run_id)
on conflict do nothing
returning 1
