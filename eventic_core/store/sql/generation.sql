-- Purpose: true while the list of handlers is the one the writer goes by; a scan of a table of one row.
(select generation from eventic.handlers_generation) = %s
