-- Purpose: part of retention_history: the versions go, and the floor of their class is noted.
-- Locks:   the rows. Index: records_pkey, history_floors_pkey.
gone as (
    delete from eventic.records r where r.version_id = any(array(select version_id from passed))
    returning r.id, r.class_type, r.superseded_at
), floors as (
    insert into eventic.history_floors (class_type, since)
    select class_type, max(superseded_at) from gone group by class_type
    on conflict (class_type) do update set since = greatest(history_floors.since, excluded.since)
)
