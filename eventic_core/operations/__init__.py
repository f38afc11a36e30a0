"""What operators do to a running system, and what they see of it; every act is on record, with who did it and why."""

from __future__ import annotations

from eventic_core.operations.acts import OperatorAct
from eventic_core.operations.erasure import Erased, erase
from eventic_core.operations.purge import plan_purge, purge
from eventic_core.operations.retention import RetentionRule

__all__ = ["Erased", "OperatorAct", "RetentionRule", "erase", "plan_purge", "purge"]
