-- Purpose: since when the past of classes is whole, of those whose past versions were removed. Locks: none.
-- Index:   history_floors_pkey.
select class_type, since from eventic.history_floors where class_type = any(%s)
