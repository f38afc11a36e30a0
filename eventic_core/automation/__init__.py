"""Automations: work over batches of items, tracked item by item; entities, repositories and the unit of work.

The public names; each is loaded when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventic_core.automation.database import DatabaseConfig
    from eventic_core.automation.declared import automation
    from eventic_core.automation.definitions import Automation, Batch, Item
    from eventic_core.automation.entity import DomainEntity, StatusTracking
    from eventic_core.automation.errors import (
        ConcurrencyError,
        DomainError,
        DuplicateEntityError,
        EntityNotFoundError,
        InvalidStateError,
        ReadOnlyError,
        RepositoryError,
        ValidationError,
    )
    from eventic_core.automation.events import (
        BatchExecutionFailed,
        DomainEvent,
        EventBus,
        ItemExecutionFailed,
        RunCancelled,
        RunCompleted,
        RunFailed,
    )
    from eventic_core.automation.executions import BatchExecution, ItemExecution
    from eventic_core.automation.logs import RichTqdmHandler, setup_logger
    from eventic_core.automation.orchestration import Engine, OrchestrationInstance, RunOrchestration
    from eventic_core.automation.replay import ReplayReport
    from eventic_core.automation.repositories import (
        AutomationRepository,
        BatchExecutionRepository,
        BatchRepository,
        EngineRepository,
        ItemExecutionRepository,
        ItemRepository,
        ItemStateHistoryRepository,
        OrchestrationInstanceRepository,
        RunOrchestrationRepository,
        RunRepository,
    )
    from eventic_core.automation.repository import Repository
    from eventic_core.automation.run import Run
    from eventic_core.automation.schema import Schema, SchemaValidationResult
    from eventic_core.automation.status import ExecutionStatus
    from eventic_core.automation.steering import Cancel, ItemContext, Skip, Snooze
    from eventic_core.automation.unit_of_work import UnitOfWork
    from eventic_core.automation.values import AuditInfo, ItemStateHistory, ValueObject, VersionInfo
    from eventic_core.runtime import Retry

_MODULES = {
    "database": ("DatabaseConfig",),
    "declared": ("automation",),
    "definitions": ("Automation", "Batch", "Item"),
    "entity": ("DomainEntity", "StatusTracking"),
    "errors": (
        "ConcurrencyError",
        "DomainError",
        "DuplicateEntityError",
        "EntityNotFoundError",
        "InvalidStateError",
        "ReadOnlyError",
        "RepositoryError",
        "ValidationError",
    ),
    "events": (
        "BatchExecutionFailed",
        "DomainEvent",
        "EventBus",
        "ItemExecutionFailed",
        "RunCancelled",
        "RunCompleted",
        "RunFailed",
    ),
    "executions": ("BatchExecution", "ItemExecution"),
    "run": ("Run",),
    "logs": ("RichTqdmHandler", "setup_logger"),
    "orchestration": ("Engine", "OrchestrationInstance", "RunOrchestration"),
    "repositories": (
        "AutomationRepository",
        "BatchExecutionRepository",
        "BatchRepository",
        "EngineRepository",
        "ItemExecutionRepository",
        "ItemRepository",
        "ItemStateHistoryRepository",
        "OrchestrationInstanceRepository",
        "RunOrchestrationRepository",
        "RunRepository",
    ),
    "replay": ("ReplayReport",),
    "repository": ("Repository",),
    "schema": ("Schema", "SchemaValidationResult"),
    "status": ("ExecutionStatus",),
    "steering": ("Cancel", "ItemContext", "Skip", "Snooze"),
    "unit_of_work": ("UnitOfWork",),
    "values": ("AuditInfo", "ItemStateHistory", "ValueObject", "VersionInfo"),
}
_HOMES = {name: f"eventic_core.automation.{module}" for module, names in _MODULES.items() for name in names}
_HOMES["Retry"] = "eventic_core.runtime"

__all__ = [
    "AuditInfo",
    "Automation",
    "AutomationRepository",
    "Batch",
    "BatchExecution",
    "BatchExecutionFailed",
    "BatchExecutionRepository",
    "BatchRepository",
    "Cancel",
    "ConcurrencyError",
    "DatabaseConfig",
    "DomainEntity",
    "DomainError",
    "DomainEvent",
    "DuplicateEntityError",
    "Engine",
    "EngineRepository",
    "EntityNotFoundError",
    "EventBus",
    "ExecutionStatus",
    "InvalidStateError",
    "Item",
    "ItemContext",
    "ItemExecution",
    "ItemExecutionFailed",
    "ItemExecutionRepository",
    "ItemRepository",
    "ItemStateHistory",
    "ItemStateHistoryRepository",
    "OrchestrationInstance",
    "OrchestrationInstanceRepository",
    "ReadOnlyError",
    "ReplayReport",
    "Repository",
    "RepositoryError",
    "Retry",
    "RichTqdmHandler",
    "Run",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunOrchestration",
    "RunOrchestrationRepository",
    "RunRepository",
    "Schema",
    "SchemaValidationResult",
    "Skip",
    "Snooze",
    "StatusTracking",
    "UnitOfWork",
    "ValidationError",
    "ValueObject",
    "VersionInfo",
    "automation",
    "setup_logger",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
