# SPDX-License-Identifier: Apache-2.0
"""Whose reports the kernel had to drop, so that a gap has a name."""

import os
import sys
from dataclasses import dataclass

from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import Map


@dataclass(frozen=True)
class Noisy:
    """A process that lost reports. *path* holds undecodable bytes as surrogate escapes."""

    pid: int
    path: str
    lost: int


def take_noisy(table: Map) -> list[Noisy]:
    """Take those of *table* out, the noisiest first. It has room for some only."""
    found = []
    for key, value in table.items():
        row = layout("aegis_noisy").unpack(value)
        path = os.fsdecode(text_of(row["path"]))
        found.append(Noisy(int.from_bytes(key, sys.byteorder), path, row["lost"]))
        table.clear(key)
    return sorted(found, key=lambda one: -one.lost)
