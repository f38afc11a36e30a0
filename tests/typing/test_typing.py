"""The public types, as mypy --strict sees them in a program of a user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/app.py"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the runs, so that only the first reads the package."""
    return tmp_path_factory.mktemp("mypy")


def check(cache: Path, *targets: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(cache)]
    ended = subprocess.run(
        [*command, *map(str, targets)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    return ended.stdout + ended.stderr


def test_assertions_about_types_hold(cache: Path) -> None:
    checks = sorted(Path(__file__).parent.glob("check_*.py"))
    assert len(checks) >= 3
    assert check(cache, *checks) == f"Success: no issues found in {len(checks)} source files\n"


@pytest.mark.parametrize("app", EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_are_typed(app: Path, cache: Path) -> None:
    """One at a time: mypy takes two files named app.py for one module."""
    assert check(cache, app) == "Success: no issues found in 1 source file\n"
