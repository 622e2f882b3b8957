# SPDX-License-Identifier: Apache-2.0
"""Where a prefix can match: by the addresses in it, whatever the tables make of it."""

from ipaddress import IPv4Network, ip_network

import pytest

from aegis.policy.flatten import MAPPED, Prefix, covers, may_be_local, may_be_remote


def prefix(text: str) -> Prefix:
    network = ip_network(text)
    value = int(network.network_address)
    if isinstance(network, IPv4Network):
        return MAPPED | value, 96 + network.prefixlen
    return value, network.prefixlen


@pytest.mark.parametrize(
    ("text", "local", "remote"),
    [
        ("127.0.0.0/8", True, False),
        ("127.128.0.0/9", True, False),
        ("127.0.0.1/32", True, False),
        ("127.255.255.255/32", True, False),
        ("126.0.0.0/7", True, True),
        ("126.255.255.255/32", False, True),
        ("128.0.0.0/8", False, True),
        ("0.0.0.0/0", True, True),
        ("0.0.0.0/31", True, True),
        ("0.0.0.0/32", True, False),
        ("0.0.0.1/32", False, True),
        ("::/0", True, True),
        ("::/126", True, True),
        ("::/127", True, False),
        ("::/128", True, False),
        ("::1/128", True, False),
        ("::2/128", False, True),
        ("::2/127", False, True),
        ("2001:db8::/32", False, True),
    ],
)
def test_local_and_remote_prefixes(text: str, local: bool, remote: bool) -> None:
    """Exactly one for a host; both for a prefix that holds some of each."""
    assert may_be_local(prefix(text)) is local
    assert may_be_remote(prefix(text)) is remote


def test_a_prefix_covers_itself_and_what_lies_in_it() -> None:
    """Not its neighbour, and nothing wider."""
    assert covers(prefix("10.0.0.0/8"), prefix("10.0.0.0/8"))
    assert covers(prefix("10.0.0.0/8"), prefix("10.255.255.255/32"))
    assert covers(prefix("::/0"), prefix("10.0.0.0/8"))
    assert not covers(prefix("10.0.0.0/8"), prefix("11.0.0.0/9"))
    assert not covers(prefix("10.0.0.0/9"), prefix("10.0.0.0/8"))
