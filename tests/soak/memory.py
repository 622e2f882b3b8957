# SPDX-License-Identifier: Apache-2.0
"""A cgroup with little memory, by whichever version of the controller is here."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.cgroup import cgroup2_mount
from tests.pace import HUNG_S
from tests.soak.scene import SoakError

_V1 = Path("/sys/fs/cgroup/memory")  # a hierarchy of its own
_CONTROL = "cgroup.subtree_control"


@dataclass(frozen=True)
class Files:
    """What is what there; *kills* has a line ``oom_kill`` among others."""

    limit: str
    peak: str
    kills: str


V1 = Files("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")
V2 = Files("memory.max", "memory.peak", "memory.events")


@dataclass(frozen=True)
class Memory:
    """One cgroup: whoever is in *place* shares the limit, the kernel's maps of theirs included."""

    place: Path
    files: Files

    def limit(self, size: int) -> None:
        """To *size* bytes, none of which may go elsewhere."""
        (self.place / self.files.limit).write_text(str(size))
        swap = self.place / "memory.swap.max"
        if self.files is V2 and swap.exists():  # a kernel without swap has none
            swap.write_text("0")

    @property
    def peak(self) -> int:
        """Bytes, at most so far."""
        return int((self.place / self.files.peak).read_text())

    @property
    def kills(self) -> int:
        """Out-of-memory kills in it, as the kernel counts them."""
        lines = (self.place / self.files.kills).read_text().splitlines()
        (number,) = (line.split()[1] for line in lines if line.split()[0] == "oom_kill")
        return int(number)


def find(first: Path = _V1, second: Path | None = None) -> tuple[Path, Files]:
    """The top of the hierarchy whose memory is governed; *second*: where cgroup2 is mounted.

    :raises SoakError: when it is neither.
    """
    second = second or cgroup2_mount()
    if (first / V1.limit).exists():
        return first, V1
    if second is not None and "memory" in (second / "cgroup.controllers").read_text().split():
        return second, V2
    raise SoakError("no memory controller here, of neither version: not shown")


def _hand_down(top: Path) -> None:
    """To the children of *top*; systemd has done so, a machine without it may not have."""
    if "memory" not in (top / _CONTROL).read_text().split():
        (top / _CONTROL).write_text("+memory")


@contextlib.contextmanager
def memory_cgroup(size: int) -> Iterator[Memory]:
    """*size* bytes for whoever enters it."""
    top, files = find()
    if files is V2:
        _hand_down(top)
    made = Memory(top / f"aegis-memory-{os.getpid()}", files)  # no scratch cgroup
    made.place.mkdir()
    try:
        made.limit(size)
        yield made
    finally:
        _remove(made.place)


def _remove(place: Path) -> None:
    end = time.monotonic() + HUNG_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            place.rmdir()
            return
        time.sleep(0.05)
