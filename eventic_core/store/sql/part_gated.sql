-- Purpose: part of a write in a run: the condition on what part_gate found.
 and exists (select from owner) and not exists (select from known)
