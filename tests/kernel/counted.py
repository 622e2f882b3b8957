# SPDX-License-Identifier: Apache-2.0
"""What the kernel has counted and holds, also of an agent that is stopped and cannot be asked."""

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aegis.bpf.object import read_counters
from aegis.bpf.pins import Pins


class Counted:
    """The kernel's end of one agent."""

    def __init__(self, counters: int, ring: int) -> None:
        self._counters, self._ring = counters, ring

    def made(self) -> int:
        """Reports, told or lost."""
        found = read_counters(self._counters)
        return found["emitted"] + found["lost"]

    def waiting(self) -> int:
        """Bytes of reports that nobody has read."""
        return self._place(1) - self._place(0)

    def _place(self, page: int) -> int:
        """0: up to where the ring was read; 1: up to where it was written."""
        offset = page * mmap.PAGESIZE
        with mmap.mmap(self._ring, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=offset) as memory:
            return int.from_bytes(memory[:8], sys.byteorder)


@contextmanager
def counted(instance: str) -> Iterator[Counted]:
    pins, opened = Pins(instance), []
    try:
        for name in ("counters", "events"):
            opened.append(pins.open(pins.map_path(name)))
        yield Counted(*opened)
    finally:
        for fd in opened:
            os.close(fd)
