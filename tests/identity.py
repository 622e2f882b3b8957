# SPDX-License-Identifier: Apache-2.0
"""The identity table as data, and the document made of it.

``python -m tests.identity`` writes docs/identity.md anew.
"""

from dataclasses import dataclass
from pathlib import Path

import tomli

from tests.sentences import ROOT

TABLE = ROOT / "tests" / "identity.toml"
DOCUMENT = ROOT / "docs" / "identity.md"

_HEAD = """\
# Who a program is

Made from tests/identity.toml by `python -m tests.identity`: do not edit it here.

Every way we know to pass for another program, or to stop being oneself, and what happens. Each row
is run against the BPF programs in force, with real programs and real unprivileged users, on every
kernel of the support matrix. *Refused* means: the connection that only the other program may make
fails with EPERM. *Anyone* is an unprivileged user, who on Debian may make user namespaces.

| A program ... | done by | and then | shown by |
|---|---|---|---|
"""
_LIMITS = """
## What is left

No tier of Aegis covers these:

"""


@dataclass(frozen=True)
class Case:
    """One row."""

    does: str
    who: str
    must: str
    shown_by: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """All rows, and what no row covers."""

    cases: tuple[Case, ...]
    limits: tuple[str, ...]


def read_table(path: Path = TABLE) -> Table:
    document = tomli.loads(path.read_text())
    cases = (Case(c["does"], c["who"], c["must"], tuple(c["shown_by"])) for c in document["case"])
    return Table(tuple(cases), tuple(limit["says"] for limit in document["limit"]))


def render(table: Table) -> str:
    """The document."""
    rows = (
        f"| {case.does} | {case.who} | {case.must} | {_tests(case.shown_by)} |\n"
        for case in table.cases
    )
    return _HEAD + "".join(rows) + _LIMITS + "".join(f"* {says}\n" for says in table.limits)


def _tests(nodes: tuple[str, ...]) -> str:
    """The files by their names; what in them is in the table."""
    files = dict.fromkeys(node.partition("::")[0].rpartition("/")[2] for node in nodes)
    return ", ".join(file.removesuffix(".py") for file in files)


if __name__ == "__main__":
    DOCUMENT.write_text(render(read_table()))
