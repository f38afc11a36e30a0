-- Purpose: part of a write of versions, several in a row of some records and others between them: what they are.
input as materialized (
    select i.*,
           row_number() over (partition by id order by version) as place,
           count(*) over (partition by id) as length
    from ({input}) i
), first as (
    select id, version, before from input where place = 1 and version > 0
)
