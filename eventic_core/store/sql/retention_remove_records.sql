-- Purpose: records go with all their versions, keys, progress of handlers and settled dead letters.
-- Locks:   the rows. Index: records_id_version_key, record_keys_pkey, handled_pkey.
with gone as (
    delete from eventic.records r where r.id = any(%(ids)s) returning r.id
), keys as (
    delete from eventic.record_keys k where k.record_id = any(%(ids)s)
), progress as (
    delete from eventic.handled h
    where h.record_id = any(%(ids)s) and h.handler in (select name from eventic.handlers)
), letters as (
    delete from eventic.dead_letters l where l.record_id = any(%(ids)s)
)
select count(distinct id), count(*) from gone
