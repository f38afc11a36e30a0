"""What is served over HTTP: the FastAPI app of an application, and routes that the app may include.

Each route asks who calls and what they may do; see `access`. Imported when an app is made.
"""

from __future__ import annotations

from eventic_core.operations.access import Principal, Role
from eventic_core.serving.access import Authenticate
from eventic_core.serving.app import create_app
from eventic_core.serving.health import health_routes
from eventic_core.serving.operations import operation_routes
from eventic_core.serving.runs import run_routes

__all__ = ["Authenticate", "Principal", "Role", "create_app", "health_routes", "operation_routes", "run_routes"]
