"""The code in README and docs runs as it is, and README names every setting and command that exists."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eventic_core
from eventic_core.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block
    for text in (README, *GUIDES)
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs_twice(number: int, database_url: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[number], encoding="utf-8")
    environment = {**os.environ, "EVENTIC_DATABASE_URL": database_url}
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
    if number == 0:
        assert run.stdout.splitlines() == ["0 Learn", "3 Ship v1!", "2", "Learn [3, 2, 1, 0]"]


def test_readme_names_every_setting_and_command() -> None:
    from eventic_core.cli._root import COMMANDS

    hidden = {"database_source", "log_level"}
    missing = [name for name in Settings.model_fields if name not in hidden and f"`{name}`" not in README]
    missing += [name for name in COMMANDS if f"eventic {name}" not in README]
    assert missing == []


def test_docstring_examples_hold() -> None:
    tried = 0
    for module in pkgutil.walk_packages(eventic_core.__path__, "eventic_core."):
        if "migrations" in module.name or "__main__" in module.name or "_keeper" in module.name:
            continue
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        tried += result.attempted
    assert tried > 0
