-- Purpose: did a write whose connection was lost commit? Locks: none. Index: records_pkey.
select version_id, recorded_at, xid::text, position from eventic.records where version_id = any(%s)
