-- Purpose: note that no version since a handler subscribed was missed. Locks: its rows. Index: handlers_pkey.
update eventic.handlers set caught_up = true where name = %s
