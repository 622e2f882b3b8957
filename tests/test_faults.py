# SPDX-License-Identifier: Apache-2.0
"""docs/faults.md names tests that exist, and words the agent really uses."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/faults.md").read_text().splitlines()
    if line.startswith("| ") and "::" in line
]
SOURCE = "".join(path.read_text() for path in (ROOT / "aegis").rglob("*.py"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_each_fault_is_shown_by_a_test(row: list[str]) -> None:
    assert len(row) == 5
    for name in row[4].split(", "):
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        assert function in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_what_it_is_told_as_is_what_the_agent_says(row: list[str]) -> None:
    for kind in re.findall(r"`([a-z]+-[a-z]+)`", row[3]):
        assert f'"{kind}"' in SOURCE, kind


def test_the_table_is_read() -> None:
    assert len(ROWS) >= 15
