# SPDX-License-Identifier: Apache-2.0
"""Sums of another layout's programs, taken along before its maps go.

They cannot be adopted, but those of history may look the same as ours: a folder beside
them, named after their form, says so. Whoever is killed meanwhile leaves them to the next one.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import cache

from aegis.bpf.layout import layout
from aegis.bpf.maps import Map
from aegis.bpf.object import open_map
from aegis.bpf.pins import Pins
from aegis.bpf.ring import DIRECTION_NAMES, VERDICTS
from aegis.bpf.sums import SUM_MAPS, KernelSums
from aegis.errors import KernelError

_STRUCTS = ("aegis_epoch", "aegis_history_key", "aegis_history", "aegis_program", "aegis_slot")


@cache
def form() -> str:
    """The same for two builds if each can read the other's sums."""
    told = [(layout(name).names, layout(name).struct.format) for name in _STRUCTS]
    numbers = (sorted(DIRECTION_NAMES.items()), sorted(VERDICTS.items()))
    return "sums-" + hashlib.sha256(repr((told, numbers)).encode()).hexdigest()[:16]


def mark(pins: Pins) -> None:
    """For whoever comes after us; a folder, since bpffs has no plain files."""
    (pins.folder / form()).mkdir(mode=0o700, exist_ok=True)


@dataclass(frozen=True)
class Inherited:
    """What programs of another layout added up, below *pins*, until ``remove``.

    *sums* None: nobody here can read it; *is_lost*: and there was something.
    """

    pins: Pins
    sums: KernelSums | None
    is_lost: bool = False
    maps: tuple[Map, ...] = ()

    def close(self) -> None:
        for table in self.maps:
            os.close(table.fd)

    def remove(self) -> None:
        self.close()
        self.pins.remove()


def inherit(pins: Pins) -> Inherited:
    """The sums below *pins*, whose programs are detached here."""
    maps: dict[str, Map] = {}
    was_in_force = pins.is_complete()
    pins.detach()
    if (pins.folder / form()).is_dir():
        with contextlib.suppress(KernelError):
            for name in SUM_MAPS:
                maps[name] = open_map(name, pins.open(pins.map_path(name)))
    sums = KernelSums(maps) if len(maps) == len(SUM_MAPS) else None
    return Inherited(pins, sums, was_in_force and sums is None, tuple(maps.values()))
