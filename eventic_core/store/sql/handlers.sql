-- Purpose: the list of handlers and the number of its last change. Locks: none. A row of nulls when there are none.
select g.generation, h.name, h.class_type, h.kind, h.method, h.since_xid::text, h.caught_up
from eventic.handlers_generation g
left join eventic.handlers h on true
order by h.name, h.class_type, h.kind, h.method
