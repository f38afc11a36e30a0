-- Purpose: how many schedules there are, how many last failed to start a run, and the due times they missed and skipped.
-- Locks:   none. Index: none, there is a row for each schedule.
select count(*)::int, count(last_error)::int, coalesce(sum(missed), 0)::bigint, coalesce(sum(skipped), 0)::bigint
from eventic.schedules
