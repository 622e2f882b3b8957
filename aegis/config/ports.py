# SPDX-License-Identifier: Apache-2.0
"""Ports and protocols as text: ``8086``, ``8000-8100``, ``53/udp``."""

import re
import socket

from aegis.policy.model import Protocol

_PORT = re.compile(r"[0-9]+")
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_PROTOCOL = re.compile(r"(.*)/([A-Za-z][A-Za-z0-9-]*)", re.DOTALL)

PROTOCOLS: dict[str | None, frozenset[Protocol]] = {
    None: frozenset(Protocol),
    **{str(protocol): frozenset((protocol,)) for protocol in Protocol},
}
"""What the word after the last ``/`` of an entry means; without one, both."""


class EntryError(ValueError):
    """An entry that cannot be understood; says what to write instead."""


def split_protocol(text: str) -> tuple[str, frozenset[Protocol]]:
    """Cut ``/tcp`` or ``/udp`` off; without one, both are meant.

    :raises EntryError: when it is another word
    """
    match = _PROTOCOL.fullmatch(text)
    if match is None:
        return text, PROTOCOLS[None]
    rest, word = match[1], match[2]
    if word in PROTOCOLS:
        return rest, PROTOCOLS[word]
    if word.lower() in PROTOCOLS:
        raise EntryError(f'"{text}": write the protocol in small letters: "{rest}/{word.lower()}"')
    raise EntryError(f'"{text}": "/{word}" is neither "/tcp" nor "/udp"')


def looks_like_ports(text: str) -> bool:
    return bool(_PORT.fullmatch(text) or _RANGE.fullmatch(text))


def parse_ports(text: str, entry: str) -> tuple[int, int]:
    """Return the first and last port of *text*, which stands in *entry*.

    :raises EntryError: for port 0, a reversed range, or no port at all
    """
    if _PORT.fullmatch(text):
        port = _parse_port(text, entry)
        return port, port
    if match := _RANGE.fullmatch(text):
        first, last = _parse_port(match[1], entry), _parse_port(match[2], entry)
        if first > last:
            raise EntryError(f'"{entry}" is reversed; write "{last}-{first}"')
        return first, last
    raise EntryError(
        f'"{entry}" is not a port or range, such as "8086" or "8000-8100"' + hint_port(text)
    )


def _parse_port(text: str, entry: str) -> int:
    if text.startswith("0"):
        if text.strip("0") == "":
            raise EntryError(f'"{entry}": there is no port 0; ports go from 1 to 65535')
        raise EntryError(f'"{entry}": write {text.lstrip("0")}, without leading zeros')
    if len(text) > 5 or int(text) > 65535:
        raise EntryError(f'"{entry}": there is no port {text[:20]}; ports go from 1 to 65535')
    return int(text)


def hint_port(text: str) -> str:
    """What was perhaps meant by a port that is none; empty when nobody can tell."""
    if re.fullmatch(r"[0-9]+(\s*[,;]\s*[0-9]+)+", text):
        ports = ", ".join(f'"{port}"' for port in re.findall(r"[0-9]+", text))
        return f"; give each its own string: {ports}"
    if match := re.fullmatch(r"([0-9]+)\s*(?::|\.\.\.?|\s-\s|\u2013|-\s|\s-)\s*([0-9]+)", text):
        return f'; did you mean "{match[1]}-{match[2]}"?'
    if match := re.fullmatch(r"(?:port|:|-)?\s*([0-9]+)\s*-?", text, re.IGNORECASE):
        return f'; did you mean "{match[1]}"?'
    if re.fullmatch(r"[a-z][a-z0-9-]{1,30}", text):
        return _hint_service(text)
    return ""


def _hint_service(name: str) -> str:
    try:
        return f'; did you mean "{socket.getservbyname(name)}"?'
    except OSError:
        return ""
