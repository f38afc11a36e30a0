-- Purpose: transactions below the first number have ended, those from the second on had not begun. Locks: none.
select pg_snapshot_xmin(pg_current_snapshot())::text, pg_snapshot_xmax(pg_current_snapshot())::text
