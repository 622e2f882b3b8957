# SPDX-License-Identifier: Apache-2.0
"""Tables as text that outlives a boot, and back: plain JSON values, nothing that runs.

What a later reader takes for the same tables is named by FORMAT, made from the
fields themselves: one added, taken away or renamed is another format.
"""

import base64
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from aegis.policy.model import Actions, Mode, Rule, Scope, Selectors, Where
from aegis.policy.tables import App, Net, Ports, Selector, Tables

_VERSION = 1  # of what a field means
_SCOPES = list(Scope)
_NET = struct.Struct("<HBBI16s")  # app, scope, length, number of the port set, address

Document = dict[str, Any]


def _format() -> str:
    shapes = [
        [made.__name__, *(field.name for field in fields(made))]
        for made in (Tables, App, Selector, Actions, Selectors)
    ]
    words = [*Ports._fields, *Net._fields, *Where._fields, *_SCOPES, *Mode]
    digest = hashlib.sha256(repr((shapes, words)).encode()).hexdigest()
    return f"{_VERSION}-{digest[:12]}"


FORMAT = _format()


class _PortSets:
    """Each set once, by number."""

    def __init__(self) -> None:
        self.numbers: dict[Ports, int] = {}

    def number(self, ports: Ports) -> int:
        return self.numbers.setdefault(ports, len(self.numbers))


def encode(tables: Tables) -> Document:
    """*tables* as values that JSON holds."""
    sets = _PortSets()
    nets = b"".join(
        _NET.pack(net.app, _SCOPES.index(net.scope), net.length, sets.number(ports), net.address)
        for net, ports in tables.nets.items()
    )
    apps = [_encode_app(app, sets) for app in tables.apps]
    return {
        "mode": str(tables.mode),
        "unconfigured_actions": asdict(tables.unconfigured_actions),
        "deny_socket_fds": tables.deny_socket_fds,
        "kill_budget": tables.kill_budget,
        "refuses_inbound": tables.refuses_inbound,
        "watches_inbound": tables.watches_inbound,
        "selectors": [asdict(selector) for selector in tables.selectors],
        "apps": apps,
        "nets": base64.b64encode(nets).decode(),
        "ports": [[ports.tcp, ports.udp] for ports in sets.numbers],
    }


def _encode_app(app: App, sets: _PortSets) -> Document:
    plain = {
        name: getattr(app, name)
        for name in ("strict", "ignore", "needs_trust", "needs_argv0", "detent", "sockets")
    }
    rule = app.rule
    return {
        **plain,
        "where": rule and list(rule.where),
        "selectors": rule and asdict(rule.selectors),
        "actions": asdict(app.actions),
        "base": {str(scope): sets.number(ports) for scope, ports in app.base.items()},
    }


def decode(document: Document) -> Tables:
    """The tables *document* was made from; of a rule, only what names it and selects.

    :raises ValueError: when it is no such document
    """
    try:
        return _decode(document)
    except (KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ValueError(f"not tables: {error!r}") from None


def _decode(document: Document) -> Tables:
    sets = [Ports(_ranges(tcp), _ranges(udp)) for tcp, udp in document["ports"]]
    packed = base64.b64decode(document["nets"], validate=True)
    nets = {
        Net(app, _SCOPES[scope], address, length): sets[number]
        for app, scope, length, number, address in _NET.iter_unpack(packed)
    }
    return Tables(
        mode=Mode(document["mode"]),
        unconfigured_actions=_actions(document["unconfigured_actions"]),
        deny_socket_fds=bool(document["deny_socket_fds"]),
        apps=tuple(_decode_app(app, sets) for app in document["apps"]),
        nets=nets,
        selectors=tuple(Selector(**selector) for selector in document["selectors"]),
        kill_budget=int(document["kill_budget"]),
        refuses_inbound=bool(document["refuses_inbound"]),
        watches_inbound=bool(document["watches_inbound"]),
    )


def _decode_app(row: Document, sets: list[Ports]) -> App:
    rest = dict(row)
    where, selectors = rest.pop("where"), rest.pop("selectors")
    actions = _actions(rest.pop("actions"))
    base = {Scope(scope): sets[number] for scope, number in rest.pop("base").items()}
    rule = where and Rule(Selectors(**selectors), Where(*where), actions)
    sockets = tuple(rest.pop("sockets"))
    return App(rule or None, actions, base, sockets=sockets, **rest)


def _ranges(pairs: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(first), int(last)) for first, last in pairs)


def _actions(given: Mapping[str, Any]) -> Actions:
    return Actions(**{**given, "scripts": tuple(given["scripts"])})
