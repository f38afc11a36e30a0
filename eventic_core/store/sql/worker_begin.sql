-- Purpose: a process works under a slot, whose lock its session holds. Locks: none. Index: workers_slot.
insert into eventic.workers (id, slot, token, application, app_version, code_version, machine, pid, queues, state)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'alive')
returning id
