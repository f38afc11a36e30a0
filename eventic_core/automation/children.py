"""What belongs to what, for deleting an entity with all that is under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.automation.definitions import Automation, Batch, Item
from eventic_core.automation.executions import BatchExecution, ItemExecution
from eventic_core.automation.orchestration import Engine, OrchestrationInstance, RunOrchestration
from eventic_core.automation.run import Run

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.automation.entity import DomainEntity

_CHILDREN: dict[type[Any], tuple[tuple[type[Any], str], ...]] = {
    Automation: ((Batch, "automation_id"), (Run, "automation_id")),
    Batch: ((Item, "batch_id"), (BatchExecution, "batch_id")),
    Item: ((ItemExecution, "item_id"),),
    Run: ((BatchExecution, "run_id"), (ItemExecution, "run_id"), (RunOrchestration, "run_id")),
    BatchExecution: ((ItemExecution, "batch_execution_id"),),
    Engine: ((OrchestrationInstance, "engine_id"),),
    OrchestrationInstance: ((RunOrchestration, "orchestration_instance_id"),),
}
"""What belongs to what: the class, and the field of it that names its parent."""


def with_children(entity: DomainEntity) -> list[DomainEntity]:
    """List an entity and all that belongs to it, once each; reads level by level, one statement for each kind."""
    found: dict[UUID, DomainEntity] = {entity.id: entity}
    level: list[DomainEntity] = [entity]
    while level:
        parents: dict[tuple[type[Any], str], list[UUID]] = {}
        for parent in level:
            for kind in _CHILDREN.get(type(parent), ()):
                parents.setdefault(kind, []).append(parent.id)
        children = (child for (cls, field), ids in parents.items() for child in _belonging(cls, field, ids))
        level = [found.setdefault(child.id, child) for child in children if child.id not in found]
    return list(found.values())


def _belonging(cls: type[Any], field: str, ids: list[UUID]) -> list[DomainEntity]:
    found: list[DomainEntity] = cls.where(getattr(cls.fields, field).in_(ids)).all()
    return found
