-- Purpose: note a failed attempt at the version after the last one handled, and when the next is due.
-- Index:   handled_pkey.
insert into eventic.handled (handler, record_id, version, attempts, due_at)
values (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))
on conflict (handler, record_id) do update
set attempts = excluded.attempts, due_at = excluded.due_at
where handled.version = excluded.version
