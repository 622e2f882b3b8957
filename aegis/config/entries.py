# SPDX-License-Identifier: Apache-2.0
"""The strings of a list, read into entries: ``10.0.0.0/8:443``, ``bob.com:8086``, ``53/udp``.

Anything that would have to be guessed at is an error that says what to write.
"""

import re
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET, AF_INET6, inet_pton

from aegis.config.ports import (
    PROTOCOLS,
    EntryError,
    hint_port,
    looks_like_ports,
    parse_ports,
    split_protocol,
)
from aegis.policy.model import Entry, Protocol, Where

NOWHERE = Where("", 0)
"""What a parsed entry's place is until its list is given one."""

Network = IPv4Network | IPv6Network
_LONGEST = 300  # a name has 253 characters, then ports and a protocol
_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_PLAIN = re.compile(
    r"(?:\[(?=[^]]*:)([0-9a-fA-F:]{2,39})(?=[]/])|([0-9.]{7,15}))"
    r"(?:/(0|[1-9][0-9]{0,2}))?(?(1)\]):([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?(?:/(tcp|udp))?"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_port_entry(text: str) -> Entry:
    """Read one string of ``ports`` or ``listen``: a port or range, of any address.

    :raises EntryError: saying what is wrong and what to write
    """
    _check_text(text)
    rest, protocols = split_protocol(text)
    if not looks_like_ports(rest) and not hint_port(rest) and (":" in rest or _is_address(rest)):
        raise EntryError(f'"{text}": only ports and ranges may stand here, such as "8086"')
    first, last = parse_ports(rest, text)
    return Entry(text, NOWHERE, first_port=first, last_port=last, protocols=protocols)


def parse_address_entry(text: str) -> Entry:
    """Read one string of ``peers`` or ``whitelist.ips``: an address or prefix.

    :raises EntryError: saying what is wrong and what to write
    """
    _check_text(text)
    entry = parse_destination(text)
    if entry.network is None:
        kind = "a host name" if entry.name else "a port"
        raise EntryError(f'"{text}" is {kind}; only addresses may stand here, as "10.0.0.0/8"')
    if (entry.first_port, entry.last_port) != (1, 65535) or entry.protocols != frozenset(Protocol):
        raise EntryError(f'"{text}": no port may stand here; write "{_plain(entry.network)}"')
    return entry


def parse_destination(text: str) -> Entry:
    """Read one string of ``remotes`` or ``locals``: address, name, ports, or both.

    :raises EntryError: saying what is wrong and what to write
    """
    return _parse_plain(text) or parse_step_by_step(text)


def _parse_plain(text: str) -> Entry | None:
    """What nearly all entries of a large policy are, in one go: an address with ports.

    None: not that plain, or wrong. A test holds this and the steps together.
    """
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    v6, v4, length, first, last, protocol = match.groups()
    ports = int(first), int(last or first)
    if not ports[0] <= ports[1] <= 65535:
        return None
    bits = 128 if v6 else 32
    try:
        address = int.from_bytes(inet_pton(AF_INET6 if v6 else AF_INET, v6 or v4))
    except OSError:
        return None
    size = int(length) if length else bits
    if size > bits or address & ((1 << (bits - size)) - 1):
        return None
    return Entry(text, NOWHERE, _network(address, size, bits), None, *ports, PROTOCOLS[protocol])


def parse_step_by_step(text: str) -> Entry:
    """The same for every string, and the only one that says what is wrong."""
    _check_text(text)
    rest, protocols = split_protocol(text)
    host, ports = (None, rest) if looks_like_ports(rest) else _split_host(rest, text)
    if ports is None:
        first, last = 1, 65535
        if rest != text:
            raise EntryError(_explain_protocol(rest, text[len(rest) :]))
    else:
        first, last = parse_ports(ports, text)
    network, name = _parse_host(host, text) if host is not None else (None, None)
    return Entry(text, NOWHERE, network, name, first, last, protocols)


def _plain(network: Network) -> str:
    """A network as a person writes it: without the length of a single address."""
    return str(network).removesuffix(f"/{network.max_prefixlen}")


def _check_text(text: str) -> None:
    if not text:
        raise EntryError('"" is empty; write a port, an address or a name, or remove it')
    if len(text) > _LONGEST:
        raise EntryError(f'"{text[:40]}..." is too long to be an entry')
    if text != text.strip() and text.strip():
        raise EntryError(f'"{text}" has blanks around it; write "{text.strip()}"')
    if "://" in text:
        raise EntryError(f'"{text}" is a URL; write "host:port", such as "bob.com:443"')


def _split_host(rest: str, entry: str) -> tuple[str | None, str | None]:
    """Part the host from its ports, which are None when there are none."""
    if rest.startswith("["):
        inside, bracket, after = rest[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise EntryError(f'"{entry}": write "[2001:db8::1]:443" for a port of an IPv6 address')
        if ":" not in inside:
            raise EntryError(f'"{entry}": brackets are for IPv6 only; write "{inside}{after}"')
        return inside, after[1:] if after else None
    if rest.count(":") > 1:
        if match := re.fullmatch(r"(.*/[0-9]+):([0-9-]+)", rest):
            raise EntryError(f'"{entry}": write "[{match[1]}]:{match[2]}"')
        return rest, None
    host, colon, ports = rest.partition(":")
    if host and looks_like_ports(host) and looks_like_ports(ports):
        raise EntryError(f'"{entry}" is not an entry; did you mean the range "{host}-{ports}"?')
    if colon and not host:
        raise EntryError(f'"{entry}": there is no host before the colon; write "{ports}"')
    return host, ports if colon else None


def _explain_protocol(host: str, protocol: str) -> str:
    ports = "8086"
    if host:
        ports = f"[{host}]:1-65535" if host.count(":") > 1 else f"{host}:1-65535"
    return f'"{host}{protocol}": {protocol} needs a port before it, such as "{ports}{protocol}"'


def _parse_host(host: str, entry: str) -> tuple[Network | None, str | None]:
    if _is_address(host):
        return _parse_network(host, entry), None
    return None, _parse_name(host, entry)


def _is_address(host: str) -> bool:
    """Whether *host* is meant as an address: no name holds ``:`` or ``/``, or ends in a number.

    ``0x50`` is a number too: resolvers take it, as a name, for 0.0.0.80.
    """
    return ":" in host or "/" in host or _NUMBER.search(host) is not None


def _parse_network(host: str, entry: str) -> Network:
    address_text, slash, length_text = host.partition("/")
    if "%" in address_text:
        interface = address_text[address_text.index("%") :]
        raise EntryError(f'"{entry}": leave out "{interface}": interfaces are not told apart')
    bits = 128 if ":" in address_text else 32
    try:
        # Three times as fast as ipaddress, and as strict: a policy may have 65,536.
        packed = inet_pton(AF_INET6 if bits == 128 else AF_INET, address_text)
    except (OSError, ValueError):
        raise EntryError(f'"{entry}": "{address_text}" is not an address' + _hint(host)) from None
    address, length = int.from_bytes(packed), bits
    if slash:
        if not _LENGTH.fullmatch(length_text) or int(length_text) > bits:
            raise EntryError(f'"{entry}": "/{length_text}" is not a length from /0 to /{bits}')
        length = int(length_text)
    host_bits = address & ((1 << (bits - length)) - 1)
    if host_bits:
        raise EntryError(
            f'"{entry}" has host bits set; write "{_network(address - host_bits, length, bits)}"'
            f' for the network or "{_plain(_network(address, bits, bits))}" for the one address'
        )
    return _network(address, length, bits)


def _network(address: int, length: int, bits: int) -> Network:
    """IPv4 written as IPv6 (``::ffff:10.0.0.1``) is IPv4, as it is for the kernel."""
    if bits == 32:
        return IPv4Network((address, length))
    if length >= 96 and address >> 32 == 0xFFFF:
        return IPv4Network((address & 0xFFFFFFFF, length - 96))
    return IPv6Network((address, length))


def _parse_name(host: str, entry: str) -> str:
    name = host.lower()
    labels = name.removesuffix(".").split(".")
    if len(name) <= 253 and all(map(_LABEL.fullmatch, labels)):
        return name
    raise EntryError(f'"{entry}" is not a port, address or name' + _hint(host))


def _hint(host: str) -> str:
    """What was perhaps meant by a host that is none."""
    if meant := hint_port(host):
        return meant
    if host == "*":
        return '; for every address write remote = true, or "0.0.0.0/0" and "::/0"'
    if "*" in host:
        return "; names with * cannot be resolved: list the names, or a network"
    if "," in host or ";" in host:
        return "; give each its own string"
    if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+){0,2})/([0-9]+)", host):
        full = match[1] + ".0" * (3 - match[1].count("."))
        return f'; write "{full}/{match[2]}"'
    if re.fullmatch(r"[0-9.]+-[0-9.]+", host):
        return '; write a network, such as "192.0.2.0/24", instead of a range'
    if not host.isascii():
        return _hint_ascii(host)
    return ', such as "8086", "10.0.0.0/8:443" or "bob.com:8086"'


def _hint_ascii(host: str) -> str:
    try:
        return f'; write "{host.encode("idna").decode()}"'
    except UnicodeError:
        return "; write it in ASCII"
