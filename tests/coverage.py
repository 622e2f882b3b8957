# SPDX-License-Identifier: Apache-2.0
"""The coverage matrix: read, and kept.

``tests/kernel/coverage.toml`` has it, ``tests/kernel/test_coverage.py`` measures it again on
each kernel and compares.

``python -m tests.coverage render`` writes docs/coverage.md from it.
``python -m tests.coverage take JUNIT.XML...`` puts into it what test runs measured: to be
read in the diff, and believed or not.
"""

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tomli

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "kernel" / "coverage.toml"
DOCUMENT = ROOT / "docs" / "coverage.md"

MODES = ("allowed", "blocked", "killed", "observed")
ABSENT = "absent"
THROUGH = "through"
# The name of what test_coverage.py records in JUnit's report: KERNEL WAY MODE CELL.
PROPERTY = "coverage"

_WAY = re.compile(r'name = "(?P<name>[^"]+)"')
_ROW = re.compile(r'on\."(?P<kernel>[^"]+)" = ')


@dataclass(frozen=True)
class Way:
    """One way to make or receive traffic, and what comes of it on each kernel."""

    name: str
    says: str
    traffic: str  # what `aegis status --coverage` counts it to
    direction: str  # "out" or "in"
    form: str  # the prober's word for it
    address: str
    program: str = "client"  # whose rule decides: see measuring.py
    started: str = "plain"  # how: see measuring.py
    arrives: str = ""  # out: what the tap must see
    arrives_at: str = ""  # if not *address*
    peer: str = ""  # in: who comes
    speaks: str = ""  # in: what the peer speaks
    on: dict[str, dict[str, str]] = field(default_factory=dict)  # kernel, mode, cell


def read_ways(path: Path = TABLE) -> tuple[Way, ...]:
    """The table; every row has a cell for each mode."""
    ways = []
    for row in tomli.loads(path.read_text())["way"]:
        cells = {
            kernel: dict(zip(MODES, found, strict=True))
            for kernel, found in row.pop("on", {}).items()
        }
        ways.append(Way(**row, on=cells))
    return tuple(ways)


def level(cells: dict[str, str]) -> str | None:
    """What `aegis status --coverage` has to say of a row; None for what a kernel lacks."""
    if cells["blocked"] == ABSENT:
        return None
    if not cells["blocked"].startswith(THROUGH):
        return "enforced"
    return "not seen" if cells["observed"] == THROUGH else "only seen"


def kernels(ways: tuple[Way, ...]) -> tuple[str, ...]:
    """Those the table has, oldest first."""
    return tuple(sorted({kernel for way in ways for kernel in way.on}, key=series))


def series(release: str) -> tuple[int, int]:
    """``6.1`` of ``6.1.0-50-amd64``, as numbers."""
    major, minor = re.split(r"[.+-]", release)[:2]
    return int(major), int(minor)


def kernel_of(release: str, known: tuple[str, ...]) -> str:
    """The one of *known* that *release* is measured against: itself, or the next older."""
    older = [kernel for kernel in known if series(kernel) <= series(release)]
    return older[-1] if older else next(iter(known), "")


def render(ways: tuple[Way, ...]) -> str:
    """The document."""
    known = kernels(ways)
    parts = [_HEAD.format(kernels=", ".join(known))]
    for direction, title in (("out", "Out"), ("in", "In")):
        parts += [f"\n## {title}\n", f"| way | kernel | {' | '.join(MODES)} |"]
        parts.append("|---|---|" + "---|" * len(MODES))
        for way in ways:
            if way.direction == direction:
                parts += _rows(way, known)
    parts += ["\n## What is not stopped\n", _OPEN_HEAD]
    parts += _open_ways(ways, known) or ["Nothing."]
    return "\n".join(parts) + "\n"


def _rows(way: Way, known: tuple[str, ...]) -> Iterator[str]:
    """Kernels that agree share a row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for kernel in known:
        if kernel in way.on:
            groups.setdefault(tuple(way.on[kernel][mode] for mode in MODES), []).append(kernel)
    for cells, members in groups.items():
        where = "all" if len(members) == len(known) else ", ".join(members)
        shown = (_shown(mode, cell) for mode, cell in zip(MODES, cells, strict=True))
        yield f"| {way.says} | {where} | {' | '.join(shown)} |"


def _shown(mode: str, cell: str) -> str:
    outcome, _, hook = cell.partition(" ")
    if hook or mode == "allowed" or outcome == ABSENT:
        return f"{outcome} ({hook})" if hook else outcome
    return f"**{outcome}, not seen**"


def _open_ways(ways: tuple[Way, ...], known: tuple[str, ...]) -> list[str]:
    found = []
    for way in ways:
        where = [k for k in known if k in way.on and way.on[k]["blocked"].startswith(THROUGH)]
        if where:
            seen = all(way.on[k]["observed"] != THROUGH for k in where)
            kernels_text = "all" if len(where) == len(known) else ", ".join(where)
            found.append(f"| {way.says} | {kernels_text} | {'seen' if seen else 'not seen'} |")
    return ["| way | kernel | |", "|---|---|---|", *found] if found else []


_HEAD = """\
# Coverage

Each way a program can make or receive traffic, done for real on each kernel ({kernels}) under a
rule that allows it, one that blocks it, one that kills, and the one that blocks in observe mode.
Generated from `tests/kernel/coverage.toml` by `python -m tests.coverage render`;
`tests/kernel/test_coverage.py` does it all again on each kernel and fails where a cell differs.

A cell says what happened and, in brackets, the hook whose event told of it:

* **through**: it arrived, as a packet on the device or as a connection accepted;
* an errno (`EPERM`): the program got it, and nothing arrived;
* **SIGKILL**: killed in the kernel, before its call returned. Where a rule kills and the cell is
  an errno, it was refused in the kernel and the agent sends the signal a moment later, or not, as
  for what sends nothing (a UDP connect);
* **nothing**: no error, and nothing arrived. An MPTCP subflow is a kernel worker's call: the
  program is told nothing, and killed by the agent;
* **absent**: this kernel does not have it, for any program;
* **not seen**: no event was raised. On the map none should be.

`aegis status --coverage` says the same of the running kernel, by probing.
The 6.18 kernel has no modules (no SCTP, L2TP, vsock loopback) and no BPF LSM;
the others are Debian's own, in virtual machines, attached at the root cgroup, with the BPF LSM
active: where their frames and vsock differ, it is the LSM that decides."""

_OPEN_HEAD = """\
A rule that blocks does not stop these, whatever `actions` say. AF_PACKET, AF_XDP, raw sockets and
tun need CAP_NET_RAW or CAP_NET_ADMIN in the network namespace they send in. Connected sockets that
are passed or taken are refused with `[global] deny_socket_fds = true` where the BPF LSM is active
(tests/kernel/test_handed_over.py); a listener that an init made for a service is the service's.
"""


def take(text: str, measured: dict[tuple[str, str], list[str]]) -> str:
    """*text* of the table with the rows *measured*: (way, kernel) to cells by mode."""
    lines: list[str] = []
    left = dict(measured)
    name = ""
    for line in [*text.splitlines(), ""]:
        if match := _WAY.match(line):
            name = match["name"]
        if match := _ROW.match(line):
            cells = left.pop((name, match["kernel"]), None)
            lines.append(_row(match["kernel"], cells) if cells else line)
            continue
        if not line and name:
            new = sorted((key for key in left if key[0] == name), key=lambda key: series(key[1]))
            lines += [_row(kernel, left.pop((name, kernel))) for _, kernel in new]
            name = ""
        lines.append(line)
    assert not left, f"no such ways: {sorted(left)}"
    return "\n".join(lines).rstrip() + "\n"


def _row(kernel: str, cells: list[str]) -> str:
    return f'on."{kernel}" = [{", ".join(chr(34) + cell + chr(34) for cell in cells)}]'


def measured_in(report: Path) -> dict[tuple[str, str], list[str]]:
    """What the tests recorded in a JUnit *report*; whole rows only."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for entry in ET.parse(report).getroot().iter("property"):  # noqa: S314 our own pytest's
        if entry.get("name") == PROPERTY:
            kernel, way, mode, cell = str(entry.get("value")).split(" ", 3)
            found.setdefault((way, kernel), {})[mode] = cell
    return {
        key: [cells[mode] for mode in MODES]
        for key, cells in found.items()
        if len(cells) == len(MODES)
    }


def main() -> int:
    """Exit code 2: wrong usage."""
    if sys.argv[1:] == ["render"]:
        DOCUMENT.write_text(render(read_ways()))
        return 0
    if sys.argv[1:2] == ["take"] and sys.argv[2:]:
        for report in map(Path, sys.argv[2:]):
            TABLE.write_text(take(TABLE.read_text(), measured_in(report)))
        return 0
    sys.stderr.write("usage: python -m tests.coverage render | take JUNIT.XML...\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
