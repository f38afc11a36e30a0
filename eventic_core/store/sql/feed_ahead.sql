-- Purpose: are stored transaction ids ahead of the cluster's, as after restoring a dump into a new one?
-- Locks: none. Index: records_feed.
select (select xid from eventic.records order by xid desc, position desc limit 1)
       >= pg_snapshot_xmax(pg_current_snapshot())
