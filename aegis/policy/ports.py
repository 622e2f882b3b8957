# SPDX-License-Identifier: Apache-2.0
"""Sets of ports as sorted, disjoint, non-touching ranges."""

from collections.abc import Iterable

from aegis.policy.model import Entry, Protocol
from aegis.policy.tables import ANY_PORT, Ports, Ranges

NO_PORTS = Ports()
ANY_PORTS = Ports(ANY_PORT, ANY_PORT)


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of *ranges* in the one form that ``Ranges`` promises."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def union(one: Ports, other: Ports) -> Ports:
    """Return the ports in either; one of the two itself where that is the answer."""
    if other in (one, NO_PORTS):
        return one
    if one == NO_PORTS:
        return other
    result = Ports(merge_ranges(one.tcp + other.tcp), merge_ranges(one.udp + other.udp))
    return one if result == one else result


def entry_ports(entry: Entry) -> Ports:
    """Return what *entry* says of ports and protocols, whatever its address."""
    ranges = ((entry.first_port, entry.last_port),)
    return Ports(
        ranges if Protocol.TCP in entry.protocols else (),
        ranges if Protocol.UDP in entry.protocols else (),
    )
