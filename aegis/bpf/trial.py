# SPDX-License-Identifier: Apache-2.0
"""A policy on trial: in force until a deadline, then the one before it is again.

The deadline stands in the policy's own row of ``configs``, and the kernel heeds it
by itself (``current_config()`` in kernel/verdict.bpf.h). The two policies are the
two halves of all tables, so nothing else can be put in force meanwhile.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE, Map
from aegis.bpf.pins import Pins
from aegis.errors import KernelError

_NS = 1_000_000_000
MAPS = {"active": 4, "configs": layout("aegis_config").size}  # and the size of a value


def boot_ns() -> int:
    """The clock of deadlines: it counts while the host sleeps, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Trial:
    """*generation* is on trial, *fallback* the one before it."""

    generation: int
    fallback: int
    expires_boot_ns: int

    @property
    def left_s(self) -> float:
        """Negative once the kernel has taken it back."""
        return (self.expires_boot_ns - boot_ns()) / _NS

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0

    @property
    def in_force(self) -> int:
        """The generation that decides now."""
        return self.fallback if self.is_over else self.generation


def active_generation(maps: Mapping[str, Map]) -> int:
    """What the one cell says; a trial may be over by now."""
    return int.from_bytes(maps["active"].get(KEY_OF_ONE) or b"", sys.byteorder)


def read_row(maps: Mapping[str, Map], half: int) -> dict[str, Any]:
    """``struct aegis_config`` of one half."""
    row = layout("aegis_config")
    return row.unpack(maps["configs"].get(index_key(half & 1)) or bytes(row.size))


def read_trial(maps: Mapping[str, Map]) -> Trial | None:
    """The trial that is going on, or is over and not cleared away yet."""
    generation = active_generation(maps)
    expires = read_row(maps, generation)["expires_boot_ns"]
    if not expires:
        return None
    return Trial(generation, read_row(maps, generation + 1)["generation"], expires)


def next_generation(maps: Mapping[str, Map]) -> int:
    """A number that no policy had, of the half that is not in force."""
    generation = active_generation(maps)
    fresh = max(generation, *(read_row(maps, half)["generation"] for half in (0, 1))) + 1
    return int(fresh if (fresh ^ generation) & 1 else fresh + 1)


def confirm(maps: Mapping[str, Map]) -> int:
    """Have what is on trial stay; return its generation.

    :raises KernelError: when nothing is, or not any more.
    """
    trial = read_trial(maps)
    if trial is None:
        raise KernelError("nothing waits for confirmation")
    if trial.is_over:
        raise KernelError("too late: the policy was taken back")
    row = read_row(maps, trial.generation) | {"expires_boot_ns": 0}
    maps["configs"].put(index_key(trial.generation & 1), layout("aegis_config").pack(**row))
    return trial.generation


def confirm_pinned(pins: Pins) -> int:
    """The same where no agent runs."""
    maps: dict[str, Map] = {}
    try:
        for name, size in MAPS.items():
            maps[name] = Map(name, pins.open(pins.map_path(name)), len(KEY_OF_ONE), size)
        return confirm(maps)
    finally:
        for table in maps.values():
            os.close(table.fd)
