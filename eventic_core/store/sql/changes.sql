-- Purpose: the change feed after a cursor. Locks: none. Index: records_feed.
-- Only versions below the oldest running transaction: no later commit can put anything before them.
select {columns} from eventic.records
where (xid, position) > (%s::text::xid8, %s) and xid < pg_snapshot_xmin(pg_current_snapshot())
  and (%s::text[] is null or class_type = any(%s::text[]))
order by records.xid, records.position
limit %s
