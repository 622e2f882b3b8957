# SPDX-License-Identifier: Apache-2.0
"""How much there may be; and what is not used any more goes back to the system."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from aegis._bpf import lib

AMPLE = 128 << 20  # a start takes up to 64 MiB, and 20 MiB more with two programs checked at once


def save() -> None:
    """From now on, and of what there is; a start leaves much behind."""
    lib.aegis_save_memory()


def is_ample(root: Path = Path("/")) -> bool:
    """Whether none of our memory cgroups leaves less than AMPLE; what is not known is."""
    with contextlib.suppress(OSError, ValueError):
        return min(_limits(root), default=AMPLE) >= AMPLE
    return True


def _limits(root: Path) -> Iterator[int]:
    """In bytes, of each of them that has one: of either version, up to the mount."""
    own = [line.split(":", 2) for line in _lines(root / "proc/self/cgroup")]
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            paths, file = [path for number, _, path in own if number == "0"], "memory.max"
        elif kind == "cgroup" and "memory" in options.split(","):
            named = [path for _, names, path in own if "memory" in names.split(",")]
            paths, file = named, "memory.limit_in_bytes"
        else:
            continue
        mount = root / left.split()[4].lstrip("/")
        for path in paths:
            place = mount / path.lstrip("/")
            for each in (place, *place.parents):
                if each.is_relative_to(mount) and (each / file).exists():
                    text = (each / file).read_text().strip()
                    yield from () if text == "max" else (int(text),)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "surrogateescape").splitlines()
