"""Runtime: work now and later on DBOS; the only package that imports dbos, and only when something is launched."""

from __future__ import annotations

from eventic_core.runtime.functions import Retry
from eventic_core.runtime.handlers import on
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import Handle, Queue, later

__all__ = ["Handle", "Queue", "Retry", "later", "on", "process"]
