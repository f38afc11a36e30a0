-- Purpose: how far a schedule has come, held until the transaction ends, and the moment; a row is made for a new one.
-- Locks:   its row, before those of runs. Index: schedules_pkey.
insert into eventic.schedules (schedule_id, timetable, decided_until)
values (%s, %s, %s)
on conflict (schedule_id) do update set changed_at = clock_timestamp()
returning timetable, decided_until, waiting_due_at, missed, skipped, last_error, clock_timestamp()
