"""The unit of work: a block of work on entities through repositories, stored as a whole or not at all.

Owns where a transaction of the block begins and ends, and that events are told after it. Writing is the scope's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from eventic_core.automation import repositories
from eventic_core.automation.entity import DomainEntity
from eventic_core.automation.errors import translated
from eventic_core.errors import ScopeError
from eventic_core.records.editing import current_scope, edit_scope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self
    from uuid import UUID

    from eventic_core.automation.database import DatabaseConfig
    from eventic_core.automation.events import DomainEvent, EventBus
    from eventic_core.records.scope import Scope


class _RolledBack(Exception):
    """Why a level is left without its work."""


class UnitOfWork:
    """A block over entities: one transaction from one `commit` to the next, all of it stored or nothing.

    `with UnitOfWork(db_config, event_bus) as uow:` commits at its end, and rolls back on an exception. An entity that
    is constructed in the block joins it: it is written by `create` of its repository or at the latest by the commit,
    and queries find it from then on. Every entity that was read, created or changed in the block takes part: what
    changed of it is stored with the commit, also without `update`. Entities are kept in memory until the block ends.

    Inside a unit of work, transaction or edit that is open already the block joins it: `commit` then writes, the
    outermost block decides, and events are told after its end.

    Args:
        db_config: The database.
        event_bus: Whom to tell the events of the entities, after the commit; those of a block that fails are dropped.

    Attributes:
        automations, batches, items, runs, batch_executions, item_executions, item_state_history, engines,
        orchestration_instances, run_orchestration: The repositories.

    Raises:
        ConcurrencyError: At a commit: somebody wrote an entity since it was read; all since the last commit is undone.
        DuplicateEntityError: At a commit, likewise: a unique key is taken.
        BlockingInLoop: In a running event loop; run a function with the block in `asyncio.to_thread`.
    """

    def __init__(self, db_config: DatabaseConfig, event_bus: EventBus | None = None) -> None:
        self._database = db_config
        self._bus = event_bus
        self._level: edit_scope | None = None
        self._scope: Scope | None = None
        self._depth = 0
        self._was_holding = False
        self.automations = repositories.AutomationRepository(self)
        self.batches = repositories.BatchRepository(self)
        self.items = repositories.ItemRepository(self)
        self.runs = repositories.RunRepository(self)
        self.batch_executions = repositories.BatchExecutionRepository(self)
        self.item_executions = repositories.ItemExecutionRepository(self)
        self.item_state_history = repositories.ItemStateHistoryRepository(self)
        self.engines = repositories.EngineRepository(self)
        self.orchestration_instances = repositories.OrchestrationInstanceRepository(self)
        self.run_orchestration = repositories.RunOrchestrationRepository(self)

    # -- the block

    def __enter__(self) -> Self:
        if self._level is not None:
            message = "The unit of work is open already: use the one you have, or make another one."
            raise ScopeError(message)
        self._database.connect()
        self._begin(())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._level is None:  # closed in the block
            return
        try:
            if kind is None:
                self._end()
            else:
                self._drop(kind, error, trace)
        finally:
            self._forget()

    def is_active(self) -> bool:
        """Tell whether the block is open."""
        return self._level is not None

    def commit(self) -> None:
        """Store what the block has done so far and tell its events; the block goes on in a new transaction.

        Nothing done since the last commit is nothing to do. Entities stay what they are, and tracked.

        Raises:
            ConcurrencyError: Somebody wrote an entity since it was read; all since the last commit is undone.
            DuplicateEntityError: Likewise: a unique key is taken.
            ScopeError: The block is not open, or the call is inside an inner block, of an edit or `transaction()`.
        """
        tracked = self._own_level("commit()").records()
        try:
            self._end()
        except BaseException:
            tracked = []
            raise
        finally:
            self._begin(record for record in tracked if record.is_stored)

    def rollback(self) -> None:
        """Undo everything since the last commit, in memory too; the block goes on in a new transaction.

        New entities are drafts again, which `create` takes. Repositories read afresh; what was read before is no
        longer tracked.

        Raises:
            ScopeError: As `commit`.
        """
        self._own_level("rollback()")
        self._drop()
        self._begin(())

    def close(self) -> None:
        """Undo what is not committed and end the block early; harmless when it is not open."""
        if self._level is not None:
            self._own_level("close()")
            try:
                self._drop()
            finally:
                self._forget()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """Do a block as a whole or not at all: in an open unit of work a part that may fail by itself, else all of one.

        Example:
            ```python
            with UnitOfWork(db_config).transaction() as uow:
                uow.automations.create(automation)
            ```
        """
        if self._level is None:
            with self:
                yield self
            return
        with translated(), edit_scope():
            yield self

    # -- what takes part

    def register_entity(self, entity: DomainEntity) -> None:
        """Make an entity take part: a draft is stored at the commit, one that is stored is tracked from now on.

        Raises:
            ScopeError: Another object for the same id takes part.
        """
        scope = self.scope()
        if entity.is_stored:
            scope.adopt(entity)
        else:
            scope.enlist(entity)

    def unregister_entity(self, entity: DomainEntity) -> None:
        """Let an entity no longer take part: a new one is a draft again, one that was changed is as it was read.

        Raises:
            ScopeError: It does not take part, or it is written in this transaction already.
        """
        scope = self.scope()
        if scope.find(entity.id) is not entity:
            message = f"{type(entity).__name__} {entity.id} does not take part in the unit of work."
            raise ScopeError(message)
        entity.pop_events()
        scope.withdraw(entity)

    def has_entity(self, entity: DomainEntity | UUID) -> bool:
        """Tell whether an entity, or one of that id, takes part."""
        if isinstance(entity, DomainEntity):
            return self.scope().find(entity.id) is entity
        return self.scope().find(entity) is not None

    def get_entity(self, entity_id: UUID) -> DomainEntity | None:
        """Give the entity of that id that takes part, without reading anything."""
        found = self.scope().find(entity_id)
        return found if isinstance(found, DomainEntity) else None

    def scope(self) -> Scope:
        """Give the scope that the block writes in; for repositories.

        Raises:
            ScopeError: The block is not open, or open in another task.
        """
        if self._scope is None or current_scope() is not self._scope:
            message = "The unit of work is not open here: use it, and its repositories, inside `with UnitOfWork(...):`."
            raise ScopeError(message)
        return self._scope

    # -- levels

    def _own_level(self, call: str) -> Scope:
        scope = self.scope()
        if scope.depth != self._depth:
            message = f"{call} inside an inner block would end it half done: leave the inner block first."
            raise ScopeError(message)
        return scope

    def _begin(self, tracked: Any) -> None:
        self._level = edit_scope(call="UnitOfWork()", instead="asyncio.to_thread(function_with_the_block)")
        try:
            self._scope = self._level.__enter__()
        except BaseException:
            self._forget()
            raise
        self._depth = self._scope.depth
        self._was_holding, self._scope.holding = self._scope.holding, True
        for record in tracked:
            self._scope.adopt(record)

    def _end(self) -> None:
        """Write what is there and leave the level; a failure undoes it."""
        level, scope = self._current()
        scope.holding = self._was_holding
        with translated():
            try:
                if not scope.holding:
                    scope.release()
                if not scope.is_outermost:
                    scope.flush()
                self._tell_events(scope)
            except BaseException as error:
                level.__exit__(type(error), error, None)
                raise
            level.__exit__(None, None, None)

    def _drop(
        self,
        kind: type[BaseException] = _RolledBack,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Leave the level as one that failed."""
        level, scope = self._current()
        scope.holding = self._was_holding
        level.__exit__(kind, error, trace)

    def _tell_events(self, scope: Scope) -> None:
        bus = self._bus
        if bus is None:
            return
        entities = [record for record in scope.records() if isinstance(record, DomainEntity)]
        events: list[DomainEvent] = [event for entity in entities for event in entity.pop_events()]
        if events:
            events.sort(key=lambda event: event.timestamp)
            scope.on_end(lambda: bus.dispatch(events))

    def _current(self) -> tuple[edit_scope, Scope]:
        assert self._level is not None
        assert self._scope is not None
        return self._level, self._scope

    def _forget(self) -> None:
        self._level = self._scope = None
