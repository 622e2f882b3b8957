# SPDX-License-Identifier: Apache-2.0
"""Mutants of the kernel's decision: each built, each to be noticed by the tests.

``python -m tests.mutants [NAME...]``, as root. Works in a copy of the checkout;
what runs on this machine is not touched. Some 15 s for each mutant.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tomli

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "mutants.toml"
COPIED = ("aegis", "kernel", "tests", "docs", "etc", "build.py", "pyproject.toml")
PROOF = ("-m", "tests.prove", "--triples", "20000", "--seed", "1")
PATIENCE_S = 900


@dataclass(frozen=True)
class Mutant:
    """*old* stands once in *file*. *killed_by*: arguments of pytest; none: the proof."""

    name: str
    file: str
    old: str
    new: str
    killed_by: tuple[str, ...] = ()

    def apply(self, root: Path) -> None:
        path = root / self.file
        path.write_text(path.read_text().replace(self.old, self.new))

    def revert(self, root: Path) -> None:
        shutil.copyfile(ROOT / self.file, root / self.file)


def read_table(path: Path = TABLE) -> list[Mutant]:
    rows = tomli.loads(path.read_text())["mutant"]
    return [Mutant(**{**row, "killed_by": tuple(row.get("killed_by", ()))}) for row in rows]


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run this Python on the copy at *root* only, also in what it starts."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "AEGIS_KERNEL_TESTS": "1",
        "AEGIS_RELOADS": "20",
    }
    return subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def build(root: Path) -> str | None:
    """Why it does not compile; None: it does."""
    built = run(root, "build.py")
    return None if built.returncode == 0 else built.stderr


def try_tests(root: Path, killed_by: tuple[str, ...]) -> tuple[bool, str]:
    """Whether they noticed, and what they said.

    :raises RuntimeError: when they noticed nothing but that nothing works
    """
    if killed_by:
        tested = run(root, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *killed_by)
        told = (tested.stdout.strip() or tested.stderr.strip()).splitlines()[-1]
        if tested.returncode not in (0, 1) or "error" in told:
            raise RuntimeError(tested.stdout[-2000:] + tested.stderr[-2000:])
        return tested.returncode == 1, told
    proved = run(root, *PROOF)
    if "differences" not in proved.stdout:
        raise RuntimeError(proved.stderr[-2000:])
    return proved.returncode == 1, proved.stdout.strip().splitlines()[-1]


def hunt(root: Path, mutant: Mutant) -> tuple[bool, str]:
    """Build *mutant* in *root*, set the tests on it, and put the file back."""
    mutant.apply(root)
    try:
        if (reason := build(root)) is not None:
            return False, f"does not compile: {reason}"
        return try_tests(root, mutant.killed_by)
    finally:
        mutant.revert(root)


def copy_checkout(target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target / name)


def main(names: list[str]) -> int:
    mutants = [mutant for mutant in read_table() if not names or mutant.name in names]
    killed = 0
    with tempfile.TemporaryDirectory(prefix="aegis-mutants-") as folder:
        root = Path(folder)
        copy_checkout(root)
        if (reason := build(root)) is not None:
            raise RuntimeError(reason)
        # Were they to fail as it is, every mutant would be killed by nothing.
        for tests in sorted({mutant.killed_by for mutant in mutants}):
            noticed, told = try_tests(root, tests)
            print(f"as it is: {told}", flush=True)
            assert not noticed
        for mutant in mutants:
            noticed, told = hunt(root, mutant)
            killed += noticed
            print(f"{'killed' if noticed else 'ALIVE'} {mutant.name}: {told}", flush=True)
    print(f"{killed} of {len(mutants)} killed")
    return 0 if killed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
