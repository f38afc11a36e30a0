"""Every example runs as its README says, prints what its README shows, and does so again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/app.py"))
APP_LINES = 120


def run(app: Path, url: str, directory: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENTIC_")}
    environment |= {"EVENTIC_DATABASE_URL": url}
    ended = subprocess.run(
        [sys.executable, str(app)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=directory,
        env=environment,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def shown_in(readme: str) -> str:
    """Give the fence of a README that holds the output."""
    (output,) = re.findall(r"^```text\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    return str(output)


def test_there_are_examples() -> None:
    assert [path.name for path in EXAMPLES][:2] == ["01_hello", "02_history"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_prints_what_its_readme_shows_twice(example: Path, database_url: str, tmp_path: Path) -> None:
    expected = shown_in((example / "README.md").read_text(encoding="utf-8"))
    for _ in range(2):
        assert run(example / "app.py", database_url, tmp_path) == expected


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_is_short_and_its_readme_says_how_to_run_it(example: Path) -> None:
    assert len((example / "app.py").read_text(encoding="utf-8").splitlines()) < APP_LINES
    assert f"python examples/{example.name}/app.py" in (example / "README.md").read_text(encoding="utf-8")
