"""What `import eventic_core` and `eventic --help` may cost, and that DBOS's own tools accept our configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

HEAVY = ("dbos", "fastapi", "psycopg", "sqlalchemy")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "code",
    ["import eventic_core", "from eventic_core.cli import main; main(['--help'], standalone_mode=False)"],
    ids=["package", "help"],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    check = f"{code}\nimport sys; print(sorted(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_dbos_config_fits_the_schema_of_dbos() -> None:
    config = yaml.safe_load((ROOT / "dbos-config.yaml").read_text(encoding="utf-8"))
    properties = json.loads((files("dbos") / "dbos-config.schema.json").read_text(encoding="utf-8"))["properties"]
    assert config.keys() <= properties.keys()
    assert config["language"] in properties["language"]["enum"]
    assert config["database"].keys() <= properties["database"]["properties"].keys()
    assert config["system_database_url"] == "${DATABASE_URL}"
    assert config["database"]["migrate"] == ["eventic migrate"]
