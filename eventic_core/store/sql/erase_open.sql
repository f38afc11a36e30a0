-- Purpose: the documents of one record may be overwritten until the transaction ends, or another is named.
-- Locks:   none. Index: none.
select set_config('eventic.erasure', %s::text, true)
