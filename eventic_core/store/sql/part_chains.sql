-- Purpose: part of a write of versions of different records, several in a row of some: what they are. Most are made alike
--          (by one run, of one class, by the same methods), so what they share is sent once, as links of a chain; a version
--          that is passed through is sent as what differs from the last one, or `whole`.
-- Its id is the last one's, a version 7 UUID, with 48 other random bits: they lie together in the index.
record as materialized (
    select r.version_id, left(r.version_id::text, 24) as stem, r.id, r.version, r.data::jsonb as data, r.step_id, r.chain,
           r.number
    from unnest(%b::uuid[], %b::uuid[], %b::int[], %b::text[], %b::int[], %b::int[])
        with ordinality as r (version_id, id, version, data, step_id, chain, number)
), link as materialized (
    select l.chain, l.place, l.length, l.tombstone, l.data::jsonb as data, l.whole, l.reason, l.calls, l.class_type,
           l.schema_version, l.actor, l.correlation_id, l.workflow_id, l.before
    from unnest(%b::int[], %b::int[], %b::int[], %b::bool[], %b::text[], %b::bool[], %b::text[], %b::text[], %b::text[],
                %b::int[], %b::text[], %b::text[], %b::text[], %b::text[])
        as l (chain, place, length, tombstone, data, whole, reason, calls, class_type, schema_version, actor,
              correlation_id, workflow_id, before)
), first as (
    select r.id, r.version - l.length + 1 as version, l.before
    from record r
    join link l on l.chain = r.chain
    where l.place = 1 and r.version >= l.length
), input as (
    select case when l.place = l.length then r.version_id
                else (r.stem || lpad(to_hex((random() * 281474976710655)::bigint), 12, '0'))::uuid end as version_id,
           r.id, r.version - l.length + l.place as version, l.class_type,
           case when l.place = l.length then r.data when l.whole then l.data else r.data || l.data end as data,
           l.tombstone, l.schema_version, l.actor, l.reason, l.correlation_id, l.workflow_id, r.step_id, l.calls,
           r.number, l.place, l.length
    from record r
    join link l on l.chain = r.chain
)
