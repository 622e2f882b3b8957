# SPDX-License-Identifier: Apache-2.0
"""What an agent had told of when it last looked, kept in the kernel for the next one."""

from collections.abc import Mapping
from dataclasses import dataclass

from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE, Map
from aegis.bpf.object import counter_names


@dataclass(frozen=True)
class Look:
    """The kernel's counters at one time."""

    boot_ns: int
    counters: Mapping[str, int]


def read_look(table: Map) -> Look | None:
    """The last one; None: no agent looked yet."""
    row = layout("aegis_watch").unpack(table.get(KEY_OF_ONE) or b"")
    if not row["boot_ns"]:
        return None
    counters = {name: row[f"value.{index}"] for index, name in enumerate(counter_names())}
    return Look(row["boot_ns"], counters)


def keep_look(table: Map, look: Look) -> None:
    values = {f"value.{index}": look.counters[name] for index, name in enumerate(counter_names())}
    table.put(KEY_OF_ONE, layout("aegis_watch").pack(boot_ns=look.boot_ns, **values))
