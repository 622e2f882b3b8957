# SPDX-License-Identifier: Apache-2.0
"""Local and remote; one form for each address."""

from ipaddress import ip_address

import pytest

from aegis.policy.address import destination_scope, mapped, normalise
from aegis.policy.model import Scope


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.0", "127.0.0.1", "127.255.255.255", "::1", "0.0.0.0", "::"),
        *("::ffff:127.0.0.1", "::ffff:127.9.9.9", "::ffff:0.0.0.0"),
    ],
)
def test_local_is_loopback_and_unspecified(text: str) -> None:
    """v4-mapped forms alike."""
    assert destination_scope(normalise(ip_address(text))) is Scope.LOCAL


@pytest.mark.parametrize(
    "text",
    [
        *("126.255.255.255", "128.0.0.0", "0.0.0.1", "::2", "::127.0.0.1", "169.254.0.1"),
        *("::ffff:10.0.0.1", "::fffe:127.0.0.1", "2001:db8::1", "fe80::1"),
    ],
)
def test_everything_else_is_remote(text: str) -> None:
    """Also this host's own other addresses, and 0.0.0.1."""
    assert destination_scope(normalise(ip_address(text))) is Scope.REMOTE


def test_one_form_for_each_address() -> None:
    """Mapped IPv4 is IPv4; a zone is no part of an address."""
    assert normalise(ip_address("::ffff:192.0.2.7")) == ip_address("192.0.2.7")
    assert normalise(ip_address("::ffff:192.0.2.7%eth0")) == ip_address("192.0.2.7")
    assert normalise(ip_address("fe80::1%eth0")) == ip_address("fe80::1")
    assert normalise(ip_address("::192.0.2.7")) == ip_address("::192.0.2.7")


def test_the_kernel_s_form_is_sixteen_bytes_in_network_order() -> None:
    """IPv4, however it is written, under ::ffff:0:0/96; other addresses as they are."""
    for text in ("192.0.2.7", "::ffff:192.0.2.7"):
        assert mapped(ip_address(text)) == bytes.fromhex("00000000000000000000ffffc0000207")
    assert mapped(ip_address("2001:db8::1")).hex() == "20010db8000000000000000000000001"
