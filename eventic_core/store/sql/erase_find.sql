-- Purpose: payloads of one column that hold one of some texts, or belong to some runs; held until the transaction ends.
-- Locks:   the rows found. Index: none for the texts, the whole table is read; the primary key for the runs.
select ctid::text, {owner}::text, {column}::text
from {table}
where {column} is not null
  and (exists (select from unnest(%(needles)s::text[]) n where position(n in {column}::text) > 0)
       or {owner}::text = any(%(runs)s::text[]))
for update
