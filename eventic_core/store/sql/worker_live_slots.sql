-- Purpose: slots that count as held. Locks: none. Index: workers_slot.
select slot from eventic.workers where state in ('alive', 'draining')
