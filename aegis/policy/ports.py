# SPDX-License-Identifier: Apache-2.0
"""Sets of ports as sorted, disjoint, non-touching ranges."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

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
    """Return the ports in either."""
    if one == NO_PORTS:
        return other
    if other in (one, NO_PORTS):
        return one
    return unite((one, other))


def unite(sets: Sequence[Ports]) -> Ports:
    """Return the ports in any of *sets*, in one pass: a list may hold 65,536 of them."""
    if len(sets) == 1:
        return sets[0]
    return Ports(
        merge_ranges(chain.from_iterable(ports.tcp for ports in sets)),
        merge_ranges(chain.from_iterable(ports.udp for ports in sets)),
    )


def entry_ports(entry: Entry) -> Ports:
    """Return what *entry* says of ports and protocols, whatever its address."""
    return _range_ports(entry.first_port, entry.last_port, entry.protocols)


@lru_cache(maxsize=4096)
def _range_ports(first: int, last: int, protocols: frozenset[Protocol]) -> Ports:
    ranges = ((first, last),)
    return Ports(
        ranges if Protocol.TCP in protocols else (),
        ranges if Protocol.UDP in protocols else (),
    )
