# SPDX-License-Identifier: Apache-2.0
"""ARCHITECTURE.md is true: its table of places and imports, and the sizes house style sets."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "aegis"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((*ROOT.glob("tests/**/*.py"), *ROOT.glob("vmtests/*.py")))
C_SOURCES = sorted(path for path in ROOT.glob("kernel/*") if path.suffix in {".c", ".h"})

# Packages that are not the standard library's, and the places that may import each.
THIRD_PARTY = {
    "pydantic": {"config"},
    "pydantic_core": {"config"},
    "tomli": {"config"},
    "rich": {"cli"},
    "apprise": {"actions"},
}
FILE_LIMIT = 400
FUNCTION_LIMIT = 60
# What only the command line may do: print, or end the program. os._exit ends a forked child.
FORBIDDEN_CALLS = {"print", "exit", "quit", "sys.exit", "sys.stdout.write", "sys.stderr.write"}


def table_rows() -> list[list[str]]:
    """The cells of every table row of ARCHITECTURE.md but headings and rules."""
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in rows if row[0].startswith("`")]


def allowed_imports() -> dict[str, set[str]]:
    """Place in the package → places it may import, from the rows with three cells."""
    allowed: dict[str, set[str]] = {"__init__": set()}
    for place, _, imports in (row for row in table_rows() if len(row) == 3):
        name = place.strip("`").removeprefix("aegis/").rstrip("/").removesuffix(".py")
        if imports == "all above":
            allowed[name] = set(allowed) - {"__init__"}
        else:
            allowed[name] = set(imports.split(", ")) - {"nothing"}
    return allowed


ALLOWED = allowed_imports()


def place_of(path: Path) -> str:
    """The row of the table a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported, at whatever depth."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from aegis import bpf` imports aegis.bpf.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violation(place: str, module: str) -> str | None:
    """Why *place* may not import *module*; None when it may."""
    top, _, rest = module.partition(".")
    if top in sys.stdlib_module_names:
        return None
    if top != "aegis":
        if place in THIRD_PARTY.get(top, set()):
            return None
        return f"{place} may not import the package {top}"
    target = rest.partition(".")[0]
    if target in {place, "__version__"} or target in ALLOWED[place]:
        return None
    if target == "_bpf" and place in {"bpf", "spawn"}:
        return None
    return f"{place} may not import {target}"


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for such an expression, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def speech(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every call that prints or ends the program."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in FORBIDDEN_CALLS:
            yield node.lineno, dotted(node.func)
        elif isinstance(node, ast.Name) and node.id == "SystemExit":
            yield node.lineno, node.id


def test_every_place_in_the_table_exists() -> None:
    """A row about a file that is gone misleads whoever reads it first."""
    places = [name for row in table_rows() for name in re.findall(r"`([^`]+)`", row[0])]
    assert len(places) > 10
    assert [place for place in places if not list(ROOT.glob(place.rstrip("/")))] == []


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_module_imports_only_what_the_table_allows(path: Path) -> None:
    """Intent flows down, facts flow up; nothing flows sideways."""
    place = place_of(path)
    assert place in ALLOWED, f"{place} is not in ARCHITECTURE.md's table"
    found = [
        f"{label(path)}:{line}: {reason}"
        for line, module in imported_modules(path, ast.parse(path.read_text()))
        if (reason := violation(place, module))
    ]
    assert found == []


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if place_of(p) not in {"cli", "__main__"}], ids=label
)
def test_library_code_neither_prints_nor_exits(path: Path) -> None:
    """Only the command line talks to a terminal or ends the program."""
    found = [f"{label(path)}:{line}: {what}" for line, what in speech(ast.parse(path.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    ("place", "module", "wrong"),
    [
        pytest.param("policy", "aegis.config.load", True, id="sideways"),
        pytest.param("config", "aegis.policy.model", False, id="down-the-lane"),
        pytest.param("config", "rich.console", True, id="a-package-of-another-place"),
        pytest.param("agent", "aegis._bpf", True, id="past-the-one-place-for-the-kernel"),
        pytest.param("bpf", "aegis._bpf", False, id="the-place-for-the-kernel"),
        pytest.param("events", "json", False, id="standard-library"),
    ],
)
def test_the_rule_itself_sees(place: str, module: str, wrong: bool) -> None:
    """Were the table read wrongly, every test above could pass on anything."""
    assert bool(violation(place, module)) is wrong


def test_relative_and_member_imports_are_seen() -> None:
    """`from ..bpf import ring` and `from aegis import bpf` hide nothing."""
    tree = ast.parse("from ..bpf import ring\nfrom aegis import bpf\nimport aegis.agent")
    modules = [module for _, module in imported_modules(PACKAGE / "events" / "event.py", tree)]
    assert modules == ["aegis.bpf.ring", "aegis.bpf", "aegis.agent"]


def test_speech_is_seen() -> None:
    """Each way to print or exit is recognised."""
    tree = ast.parse(
        "print(1)\nsys.exit(2)\nsys.stderr.write('x')\nraise SystemExit(3)\nlog.exit()"
    )
    assert [line for line, _ in speech(tree)] == [1, 2, 3, 4]


@pytest.mark.parametrize("path", [*MODULES, *TESTS, *C_SOURCES, ROOT / "build.py"], ids=label)
def test_file_is_of_a_size_to_be_read(path: Path) -> None:
    """A licence line first, at most 400 lines, no function over 60."""
    text = path.read_text()
    assert "SPDX-License-Identifier: " in text.splitlines()[0]
    assert len(text.splitlines()) <= FILE_LIMIT
    if path.suffix == ".py":
        long = [
            f"{node.name}: {lines} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LIMIT
        ]
        assert long == []
