-- Purpose: a payload without what was erased. Locks: its row, which erase_find has locked. Index: none, by place.
update {table} set {column} = %s::{type} where ctid = %s::tid returning 1
