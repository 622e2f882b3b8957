# SPDX-License-Identifier: Apache-2.0
"""Lists of entries → ports for any address, and for each prefix.

The kernel's longest-prefix match returns one node only, so each node's ports
are the union over all that cover it. Runs over whole policies: integers, no
``ipaddress`` in the loops.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from aegis.policy.address import normalise
from aegis.policy.model import Address, Entry, Resolution
from aegis.policy.ports import NO_PORTS, entry_ports, union, unite
from aegis.policy.tables import Ports

MAPPED = 0xFFFF << 32
"""::ffff:0:0, under whose first 96 bits IPv4 lives."""

Prefix = tuple[int, int]
"""128-bit value with host bits zero, and length: sorts covering prefixes first."""

Grant = tuple[Prefix | None, Ports]
"""These ports at this prefix; ``None`` is any address, of either IP version."""

_IPV4: Prefix = (MAPPED, 96)
# Loopback and the unspecified addresses; :: and ::1 are all there is in ::/127.
_LOCAL: tuple[Prefix, ...] = ((MAPPED | 127 << 24, 104), (MAPPED, 128), (0, 127))


def address_prefix(address: Address) -> Prefix:
    """Return the exact host *address*."""
    address = normalise(address)
    value = int(address)
    return (MAPPED | value if isinstance(address, IPv4Address) else value, 128)


def grants(entries: Iterable[Entry], resolution: Resolution) -> Iterator[Grant]:
    """Yield what *entries* allow; a name allows what it resolved to, or nothing."""
    for entry in entries:
        ports = entry_ports(entry)
        if entry.network is not None:
            value, length = int(entry.network.network_address), entry.network.prefixlen
            if entry.network.version == 4:
                yield (MAPPED | value, 96 + length), ports
            elif not covers(_IPV4, (value, length)):
                yield (value, length), ports
            # Otherwise IPv6 spelling of IPv4, which the model forbids: grants nothing.
        elif entry.name is not None:
            for address in resolution.names.get(entry.name, ()):
                yield address_prefix(address), ports
        else:
            yield None, ports


def flatten(granted: Iterable[Grant]) -> tuple[Ports, dict[Prefix, Ports]]:
    """Return the ports of any address, and the nodes that differ from it.

    The longest node that covers an address, else the first value, is exactly the
    union of what was granted to it. IPv6 prefixes grant no IPv4: where one covers
    ::ffff:0:0/96, that becomes a node of its own.
    """
    base, own = _collect(granted)
    if any(covers(prefix, _IPV4) for prefix in own):
        own.setdefault(_IPV4, NO_PORTS)
    nodes: dict[Prefix, Ports] = {}
    above: list[tuple[Prefix, Ports]] = []  # the nodes that cover this one, shortest first
    for prefix in sorted(own):
        while above and not covers(above[-1][0], prefix):
            above.pop()
        nearest = above[-1][1] if above else base
        inherited = base if prefix == _IPV4 else nearest
        ports = union(inherited, own[prefix])
        if ports != nearest:  # otherwise the node above says the same
            nodes[prefix] = ports
        above.append((prefix, ports))
    return base, nodes


def covers(one: Prefix, other: Prefix) -> bool:
    """Whether *other* lies wholly within *one*."""
    return one[1] <= other[1] and (one[0] ^ other[0]) >> (128 - one[1]) == 0


def may_be_local(prefix: Prefix) -> bool:
    """Whether some address of *prefix* is a local destination."""
    return any(covers(prefix, local) or covers(local, prefix) for local in _LOCAL)


def may_be_remote(prefix: Prefix) -> bool:
    """Whether some address of *prefix* is a remote destination."""
    for local in _LOCAL:  # noqa: SIM110 (any() takes twice as long here)
        if covers(local, prefix):
            return False
    return True


def _collect(granted: Iterable[Grant]) -> tuple[Ports, dict[Prefix, Ports]]:
    """Add up what was granted to the same prefix."""
    held: dict[Prefix | None, list[Ports]] = {None: [NO_PORTS]}
    for prefix, ports in granted:
        held.setdefault(prefix, []).append(ports)
    base = unite(held.pop(None))
    return base, {prefix: unite(sets) for prefix, sets in held.items() if prefix is not None}
