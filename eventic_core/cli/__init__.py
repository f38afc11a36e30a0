"""The command line `eventic`; each sub-command is a module that is imported when it is called."""

from __future__ import annotations

from eventic_core.cli._root import main

__all__ = ["main"]
