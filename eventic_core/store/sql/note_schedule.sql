-- Purpose: how far a schedule has come now. Locks: its row. Index: schedules_pkey.
update eventic.schedules
set timetable = %(timetable)s, decided_until = %(decided_until)s, waiting_due_at = %(waiting_due_at)s,
    missed = %(missed)s, skipped = %(skipped)s, last_error = %(last_error)s, changed_at = clock_timestamp()
where schedule_id = %(schedule)s
returning 1
