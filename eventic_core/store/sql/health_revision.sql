-- Purpose: the revision of our tables. Locks: none. Index: none, it has one row.
select version_num::text from eventic.eventic_version
