"""Runs the command line: `python -m eventic_core` is `eventic`."""

from __future__ import annotations

from eventic_core.cli import main

if __name__ == "__main__":
    main(prog_name="eventic")
