# SPDX-License-Identifier: Apache-2.0
"""The mutation score of the pure Python: ``python -m tests.mutate policy|config [--count N]``.

Each mutant is one operator, constant, condition or operand otherwise, in a copy
of the checkout; its own tests must fail. A sample drawn from a seed: all of them
are some thousand, at seconds each.
"""

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.mutants import ROOT, copy_checkout

PATIENCE_S = 240
# What is quick to fail comes first; pytest stops at the first failure.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "policy": (
        tuple(
            f"aegis/policy/{name}.py"
            for name in (
                *("decide", "match", "killing", "compile", "flatten", "targets", "ports"),
                *("address", "explain"),
            )
        ),
        ("tests/policy",),
    ),
    "config": (
        tuple(
            f"aegis/config/{path.name}"
            for path in sorted((ROOT / "aegis" / "config").glob("*.py"))
            if path.name != "__init__.py"
        ),
        ("tests/config",),
    ),
}
SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}


@dataclass(frozen=True)
class Change:
    """One way to get one place wrong; *make* edits the tree it was found in."""

    line: int
    what: str
    make: Callable[[], object]


def changes(tree: ast.Module) -> Iterator[Change]:
    """Every mutant of *tree*, in a fixed order."""
    for node in ast.walk(tree):
        for what, make in _changes_of(node, tree):
            yield Change(getattr(node, "lineno", 0), what, make)


def _changes_of(node: ast.AST, tree: ast.Module) -> Iterator[tuple[str, Callable[[], object]]]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if swap := SWAPS.get(type(operator)):
                yield (
                    f"{type(operator).__name__} to {swap.__name__}",
                    _setter(node.ops, place, swap()),
                )
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and for or", lambda: setattr(node, "op", other)
        for place in range(len(node.values)):
            yield f"without operand {place}", partial(node.values.pop, place)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "not this constant", lambda: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "one more", lambda: setattr(node, "value", int(str(node.value)) + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", lambda: _replace(tree, node, node.operand)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        other_sign = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield "plus for minus", lambda: setattr(node, "op", other_sign)
    elif isinstance(node, ast.IfExp | ast.If):
        yield "the other branch", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))


def _setter(items: list[ast.cmpop], place: int, value: ast.cmpop) -> Callable[[], object]:
    return lambda: items.__setitem__(place, value)


def _replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and old in value:
                value[value.index(old)] = new


def mutate(text: str, number: int) -> tuple[str, Change]:
    """The source *text* with its mutant *number*, and what that is."""
    tree = ast.parse(text)
    change = list(changes(tree))[number]
    change.make()
    return ast.unparse(ast.fix_missing_locations(tree)), change


def is_killed(root: Path, tests: tuple[str, ...]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AEGIS_TRIPLES": "10000",
        "AEGIS_SEED": "7",
        "AEGIS_FUZZ": "500",
    }
    try:
        finished = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return finished.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("group", choices=sorted(GROUPS))
    parser.add_argument("--count", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=5, metavar="N")
    arguments = parser.parse_args()
    files, tests = GROUPS[arguments.group]
    sources = {file: (ROOT / file).read_text() for file in files}
    every = [(f, n) for f in files for n in range(sum(1 for _ in changes(ast.parse(sources[f]))))]
    chosen = random.Random(arguments.seed).sample(every, min(arguments.count, len(every)))  # noqa: S311
    killed = 0
    with tempfile.TemporaryDirectory(prefix="aegis-mutate-") as folder:
        root = Path(folder)
        copy_checkout(root)
        assert not is_killed(root, tests), "the tests fail as it is"
        for file, number in chosen:
            text, change = mutate(sources[file], number)
            (root / file).write_text(text)
            noticed = is_killed(root, tests)
            (root / file).write_text(sources[file])
            killed += noticed
            if not noticed:
                print(f"ALIVE {file}:{change.line}: {change.what}", flush=True)
    score = 100 * killed / len(chosen)
    print(f"{killed} of {len(chosen)} killed ({score:.0f} %), drawn from {len(every):,}")
    return 0 if score >= 95 else 1


if __name__ == "__main__":
    sys.exit(main())
