"""Each fault of `docs/faults.md` is shown by tests that exist; none is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", (ROOT / "docs" / "faults.md").read_text("utf-8"), re.MULTILINE)


def test_the_table_has_every_fault() -> None:
    assert [int(number) for number, _row in ROWS] == list(range(1, 29))


@pytest.mark.parametrize(("number", "row"), ROWS, ids=[number for number, _row in ROWS])
def test_a_fault_is_shown_by_tests_that_exist(number: str, row: str) -> None:
    named = re.findall(r"`(tests/[^`:]+)::(\w+)`", row)
    assert named, "no test shows it"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path} has no {name}"
