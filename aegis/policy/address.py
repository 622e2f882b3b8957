# SPDX-License-Identifier: Apache-2.0
"""One form for each address, and which of them are local."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address

from aegis.policy.model import Address, Scope

_LOOPBACK = IPv4Network("127.0.0.0/8")
_ELSE_LOCAL = frozenset(
    (IPv4Address("0.0.0.0"), IPv6Address("::"), IPv6Address("::1"))  # noqa: S104
)


def normalise(address: Address) -> Address:
    """Return *address* as IPv4 if it is one in disguise, and without a zone (``%eth0``).

    The kernel sends ::ffff:192.0.2.7 to 192.0.2.7: two spellings, one verdict.
    """
    if isinstance(address, IPv4Address):
        return address
    mapped = address.ipv4_mapped
    if mapped is not None:
        return mapped
    return IPv6Address(int(address)) if address.scope_id else address


def destination_scope(address: Address) -> Scope:
    """Return the scope of a destination; *address* is normalised.

    The unspecified address is local, because the kernel sends it to loopback.
    """
    if address in _ELSE_LOCAL or address in _LOOPBACK:
        return Scope.LOCAL
    return Scope.REMOTE


def mapped(address: Address) -> bytes:
    """Return 16 bytes, network order, IPv4 as ::ffff:a.b.c.d: as the kernel compares."""
    address = normalise(address)
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed
