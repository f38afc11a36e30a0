-- Purpose: the schema versions of the given classes that are stored, for the start-up check. Locks: none.
-- Index: record_classes_pkey.
select class_type, schema_version from eventic.record_classes where class_type = any(%s)
