# SPDX-License-Identifier: Apache-2.0
"""What a record says, for people: where a program went, also when it went nowhere."""

from collections.abc import Callable, Mapping
from typing import Any

from aegis.events.ecs import Record
from aegis.events.text import printable


def where(record: Record, shorten: Callable[[str], str] = str) -> str:
    """Return ``-> 192.0.2.7:443/tcp``, by its name if it has one; inbound ``<- peer``.

    For what is no connection: ``listens on 80/tcp``, ``makes a socket of sctp``.
    Nothing in it can steer a terminal; *shorten* may cut a name.
    """
    hook = text_at(record, "aegis.hook")
    if hook == "socket":
        return f"makes a socket of {text_at(record, 'network.transport')}"
    inbound = text_at(record, "network.direction") == "ingress"
    side = "source" if inbound else "destination"
    address = shorten(text_at(record, f"{side}.domain")) or text_at(record, f"{side}.ip")
    port = text_at(record, "destination.port")
    protocol = text_at(record, "network.transport")
    if value_at(record, "aegis.anywhere"):
        return f"{'<-' if inbound else '->'} many others/{protocol}"
    if hook in ("bind", "listen"):
        return f"listens on {port}/{protocol}"
    if inbound:
        return f"<- {address or '?'} on {port}/{protocol}"
    if ":" in address:
        address = f"[{address}]"
    return f"-> {address}:{port}/{protocol}"


def text_at(record: Record, path: str) -> str:
    value = value_at(record, path)
    return "" if value is None else printable(str(value))


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """Return what stands at dotted *path*; None if there is nothing."""
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
