-- Purpose: part of a lateral join: the id of the execution of item `i.id` in a run, a version 7 UUID made of the pair.
--          `item_execution_id` in automation/executions.py computes the same.
select (substr(replace(%(run)s::text, '-', ''), 1, 12) || '7' || substr(hex, 13, 3)
        || to_hex((('x' || substr(hex, 16, 1))::bit(4)::int & 3) | 8) || substr(hex, 17, 15))::uuid as id
from (select encode(sha256(convert_to(%(run)s::text || ':' || i.id::text, 'UTF8')), 'hex') as hex offset 0) h
