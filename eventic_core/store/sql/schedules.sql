-- Purpose: how far schedules have come. Locks: none. Index: schedules_pkey.
select schedule_id, timetable, decided_until, waiting_due_at, missed, skipped, last_error
from eventic.schedules where schedule_id = any(%s)
