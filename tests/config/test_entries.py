# SPDX-License-Identifier: Apache-2.0
"""Each form an entry may have, and each mistake with what to write instead."""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.config.entries import (
    _parse_plain,
    parse_address_entry,
    parse_destination,
    parse_port_entry,
    parse_step_by_step,
)
from aegis.config.ports import EntryError
from aegis.policy.model import Entry, Protocol

BOTH = frozenset(Protocol)
UDP = frozenset((Protocol.UDP,))
TCP = frozenset((Protocol.TCP,))
ALL = (1, 65535)


@pytest.mark.parametrize(
    ("text", "host", "ports", "protocols"),
    [
        ("8086", None, (8086, 8086), BOTH),
        ("1", None, (1, 1), BOTH),
        ("65535", None, (65535, 65535), BOTH),
        ("8000-8100", None, (8000, 8100), BOTH),
        ("80-80", None, (80, 80), BOTH),
        ("53/udp", None, (53, 53), UDP),
        ("1-1024/tcp", None, (1, 1024), TCP),
        ("10.0.0.0/8", "10.0.0.0/8", ALL, BOTH),
        ("10.0.0.0/8:443", "10.0.0.0/8", (443, 443), BOTH),
        ("192.0.2.7", "192.0.2.7/32", ALL, BOTH),
        ("192.0.2.7:8000-8100", "192.0.2.7/32", (8000, 8100), BOTH),
        ("192.0.2.7:53/udp", "192.0.2.7/32", (53, 53), UDP),
        ("0.0.0.0/0", "0.0.0.0/0", ALL, BOTH),
        ("::/0", "::/0", ALL, BOTH),
        ("2001:db8::1", "2001:db8::1/128", ALL, BOTH),
        ("2001:db8::/32", "2001:db8::/32", ALL, BOTH),
        ("[2001:db8::/32]:443", "2001:db8::/32", (443, 443), BOTH),
        ("[2001:db8::1]:53-54/tcp", "2001:db8::1/128", (53, 54), TCP),
        ("[2001:db8::1]", "2001:db8::1/128", ALL, BOTH),
        ("::ffff:10.0.0.1", "10.0.0.1/32", ALL, BOTH),
        ("[::ffff:10.0.0.0/104]:53", "10.0.0.0/8", (53, 53), BOTH),
        ("::ffff:0:0/96", "0.0.0.0/0", ALL, BOTH),
    ],
)
def test_address_forms(
    text: str, host: str | None, ports: tuple[int, int], protocols: frozenset[Protocol]
) -> None:
    """Ports, addresses and networks, alone and together, with and without a protocol."""
    entry = parse_destination(text)
    assert entry.text == text
    assert entry.network == (ip_network(host) if host else None)
    assert (entry.first_port, entry.last_port) == ports
    assert (entry.protocols, entry.name) == (protocols, None)


@pytest.mark.parametrize(
    ("text", "name", "ports"),
    [
        ("bob.com", "bob.com", ALL),
        ("bob.com:8086", "bob.com", (8086, 8086)),
        ("Bob.COM:1-9", "bob.com", (1, 9)),
        ("localhost", "localhost", ALL),
        ("db-01.example.", "db-01.example.", ALL),
        ("_srv.x1", "_srv.x1", ALL),
        ("xn--bcher-kva.de", "xn--bcher-kva.de", ALL),
    ],
)
def test_name_forms(text: str, name: str, ports: tuple[int, int]) -> None:
    """A name, in small letters as the resolver is asked for it, with and without ports."""
    entry = parse_destination(text)
    assert (entry.name, entry.network) == (name, None)
    assert (entry.first_port, entry.last_port) == ports


WRONG = [
    ("", "is empty"),
    (" 80", 'has blanks around it; write "80"'),
    ("x" * 301, "too long"),
    ("10.0.0.1/8", 'host bits set; write "10.0.0.0/8" for the network or "10.0.0.1" for the one'),
    ("2001:db8::1/32", 'host bits set; write "2001:db8::/32"'),
    ("::ffff:10.0.0.1/104", 'host bits set; write "10.0.0.0/8" for the network or "10.0.0.1"'),
    ("0", "there is no port 0"),
    ("0-5", "there is no port 0"),
    ("00", "there is no port 0"),
    ("65536", "there is no port 65536; ports go from 1 to 65535"),
    ("9" * 200, "there is no port"),
    ("080", "write 80, without leading zeros"),
    ("8100-8000", 'is reversed; write "8000-8100"'),
    ("10.0.0.1:8100-8000", 'is reversed; write "8000-8100"'),
    ("8000:8100", 'did you mean the range "8000-8100"'),
    ("8000 - 8100", 'did you mean "8000-8100"'),
    ("8000–8100", 'did you mean "8000-8100"'),  # noqa: RUF001
    ("port 8086", 'is not a port, address or name; did you mean "8086"'),
    ("80,443", "give each its own string"),
    ("bob.com,jim.com", "give each its own string"),
    ("10.0.0.1/tcp", 'needs a port before it, such as "10.0.0.1:1-65535/tcp"'),
    ("::1/udp", r'such as "\[::1\]:1-65535/udp"'),
    ("/udp", "needs a port before it"),
    ("53/sctp", '"/sctp" is neither "/tcp" nor "/udp"'),
    ("53/UDP", 'small letters: "53/udp"'),
    ("2001:db8::/32:443", r'write "\[2001:db8::/32\]:443"'),
    ("[10.0.0.1]:4", 'brackets are for IPv6 only; write "10.0.0.1:4"'),
    ("[::1", r'write "\[2001:db8::1\]:443"'),
    ("[::1]4", r'write "\[2001:db8::1\]:443"'),
    ("[::1]:", "is not a port or range"),
    ("10.0.0.1:", "is not a port or range"),
    (":80", 'there is no host before the colon; write "80"'),
    ("bob.com:https", 'is not a port or range.*did you mean "443"'),
    ("bob.com:0", "there is no port 0"),
    ("https://bob.com", "is a URL"),
    ("*", "remote = true"),
    ("*.bob.com", "cannot be resolved"),
    ("bücher.de", 'write "xn--bcher-kva.de"'),
    ("10/8", 'write "10.0.0.0/8"'),
    ("1.2.3", '"1.2.3" is not an address'),
    ("1.2.3.4.5", "is not an address"),
    ("010.0.0.1", "is not an address"),
    ("10.0.0.0/33", "is not a length from /0 to /32"),
    ("10.0.0.0/08", "is not a length"),
    ("10.0.0.0/255.0.0.0", "is not a length"),
    ("::/129", "is not a length from /0 to /128"),
    ("fe80::1%eth0", 'leave out "%eth0"'),
    ("192.0.2.1-192.0.2.9", "write a network"),
    ("0x50", "is not an address"),  # resolvers take it for 0.0.0.80
    ("1٣", "is not a port, address or name"),
    ("a b", "is not a port, address or name"),
    ("-", "is not a port, address or name"),
    ("a..b", "is not a port, address or name"),
    ("-a.com", "is not a port, address or name"),
    ("a" * 64 + ".com", "is not a port, address or name"),
    ("8086\0", "is not a port, address or name"),
    ("10.0.0.1\n", "has blanks around it"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_wrong_destination(text: str, reason: str) -> None:
    """What would have to be guessed at is an error that says what to write."""
    with pytest.raises(EntryError, match=reason):
        parse_destination(text)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/8", "10.0.0.0/8:80", "bob.com:80", "::1"])
def test_ports_take_no_address(text: str) -> None:
    """``ports`` and ``listen`` take ports and ranges only."""
    with pytest.raises(EntryError, match="only ports and ranges may stand here"):
        parse_port_entry(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("port 8086", '"port 8086" is not a port or range, such as "8086" or "8000-8100"'),
        ("https", 'did you mean "443"'),
        ("bob.com", "is not a port or range"),
        ("80,443", 'give each its own string: "80", "443"'),
        ("-5", 'did you mean "5"'),
        ("0", "no port 0"),
        ("9-1/udp", 'write "1-9"'),
        ("", "is empty"),
    ],
)
def test_wrong_port(text: str, reason: str) -> None:
    """The message of the issue, and the mistakes made most."""
    with pytest.raises(EntryError, match=reason):
        parse_port_entry(text)


def test_port_entry_is_of_any_address() -> None:
    entry = parse_port_entry("8000-8100/tcp")
    assert (entry.network, entry.name, entry.protocols) == (None, None, TCP)
    assert (entry.first_port, entry.last_port) == (8000, 8100)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("192.0.2.1", IPv4Network("192.0.2.1")),
        ("2001:db8::/32", IPv6Network("2001:db8::/32")),
        ("::ffff:192.0.2.1", IPv4Network("192.0.2.1")),
    ],
)
def test_address_entry(text: str, network: IPv4Network | IPv6Network) -> None:
    entry = parse_address_entry(text)
    assert (entry.network, entry.first_port, entry.last_port) == (network, 1, 65535)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("80", "is a port; only addresses"),
        ("bob.com", "is a host name; only addresses"),
        ("192.0.2.1:80", 'no port may stand here; write "192.0.2.1"'),
        ("10.0.0.0/8:80/tcp", 'no port may stand here; write "10.0.0.0/8"'),
        ("10.0.0.1/8", "host bits set"),
        ("", "is empty"),
    ],
)
def test_wrong_address_entry(text: str, reason: str) -> None:
    """``peers`` and ``whitelist.ips`` take addresses only."""
    with pytest.raises(EntryError, match=reason):
        parse_address_entry(text)


@given(st.text(max_size=40) | st.text("0123456789abcdf.:/[]-tup%", max_size=25))
def test_any_text_is_an_entry_or_an_error(text: str) -> None:
    """Nothing else escapes, and what is accepted has ports and no IPv4 hidden in IPv6."""
    for parse in (parse_destination, parse_port_entry, parse_address_entry):
        try:
            entry = parse(text)
        except EntryError as error:
            assert str(error)
            continue
        assert 1 <= entry.first_port <= entry.last_port <= 65535
        assert entry.protocols
        mapped = IPv6Network("::ffff:0:0/96")
        assert not (isinstance(entry.network, IPv6Network) and entry.network.subnet_of(mapped))


def outcome(parse: Callable[[str], Entry], text: str) -> Entry | str:
    try:
        return parse(text)
    except EntryError as error:
        return str(error)


PARTS = st.tuples(
    st.sampled_from(["", "[", "[["]),
    st.ip_addresses().map(str)
    | st.sampled_from(["::", "1.2.3", "::ffff:1.2.3.4", "::ffff:1:2", "0x1"]),
    st.sampled_from(["", "/0", "/8", "/32", "/33", "/64", "/96", "/128", "/129", "/08"]),
    st.sampled_from(["", "]", "]]"]),
    st.sampled_from(["", ":443", ":0", ":080", ":65536", ":8-9", ":9-8", ":1-65535", ":", "443"]),
    st.sampled_from(["", "/tcp", "/udp", "/TCP", "/icmp", "/"]),
)


@given(PARTS.map("".join))
def test_the_short_way_through_a_plain_entry_means_the_same(text: str) -> None:
    """And what it cannot read gets the message of the long way."""
    assert outcome(parse_destination, text) == outcome(parse_step_by_step, text)


def test_the_short_way_is_taken() -> None:
    """Otherwise the test above compares the long way with itself."""
    for text in ("10.0.0.0/8:443", "[2001:db8::/32]:1-9/tcp", "[::1]:53/udp", "192.0.2.7:80"):
        assert _parse_plain(text) is not None, text


@given(st.ip_addresses(v=4), st.integers(0, 32), st.integers(1, 65535))
def test_ipv4_round_trip(address: object, length: int, port: int) -> None:
    """Every network with every port is read as what it says, in both spellings."""
    network = ip_network(f"{address}/{length}", strict=False)
    entry = parse_destination(f"{network}:{port}")
    assert (entry.network, entry.first_port, entry.last_port) == (network, port, port)
    mapped = parse_destination(f"[::ffff:{network.network_address}/{96 + length}]:{port}")
    assert mapped.network == network


@given(
    st.ip_addresses().map(str)
    | st.text("0123456789.", min_size=1, max_size=12)
    | st.text("0123456789abcdefF:.", min_size=2, max_size=20).filter(lambda text: ":" in text)
)
def test_addresses_are_those_of_the_standard_library(text: str) -> None:
    """The faster parser takes and refuses the same, and means the same."""
    try:
        wanted = str(ip_address(text))
    except ValueError:
        with pytest.raises(EntryError):
            parse_address_entry(text)
    else:
        network = parse_address_entry(text).network
        mapped = getattr(ip_address(text), "ipv4_mapped", None)
        assert network == ip_network(str(mapped or wanted))
