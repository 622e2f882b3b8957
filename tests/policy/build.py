# SPDX-License-Identifier: Apache-2.0
"""Short ways to write policies down in tests."""

from ipaddress import ip_address, ip_network
from typing import Any

from aegis.policy.decide import decide
from aegis.policy.model import (
    Actions,
    Decision,
    Direction,
    Entry,
    Flow,
    Identity,
    Policy,
    Protocol,
    Resolution,
    Rule,
    Selectors,
    Settings,
    Where,
    Whitelist,
)

LOG = Actions(log=True)
BLOCK = Actions(log=True, block=True)
KILL = Actions(kill=True)
EMPTY = Resolution()
LISTS = ("ports", "remotes", "locals", "listen", "peers")
SELECTORS = ("exe", "path", "cmdline", "user", "unit")


def entry(text: str, line: int = 1) -> Entry:
    """Parse ``[ADDRESS or NAME][:FIRST[-LAST]][/tcp|/udp]``; IPv6 in brackets."""
    rest, protocols = text, frozenset(Protocol)
    for protocol in Protocol:
        if rest.endswith(f"/{protocol}"):
            rest, protocols = rest.removesuffix(f"/{protocol}"), frozenset({protocol})
    host, ports = "", rest
    if rest.startswith("["):
        host, _, ports = rest[1:].partition("]")
        ports = ports.removeprefix(":")
    elif ":" in rest:
        host, _, ports = rest.rpartition(":")
    elif "." in rest:
        host, ports = rest, ""
    first, _, last = (ports or "1-65535").partition("-")
    is_name = any(letter in "ghijklmnopqrstuvwxyz" for letter in host)
    return Entry(
        text,
        Where("list.toml", line),
        network=ip_network(host) if host and not is_name else None,
        name=host if is_name else None,
        first_port=int(first),
        last_port=int(last or first),
        protocols=protocols,
    )


def rule(line: int = 1, **keys: Any) -> Rule:
    """Write an ``[[app]]``: selectors, lists of strings and every other key by name."""
    selectors = {key: keys.pop(key) for key in SELECTORS if key in keys}
    for key in LISTS:
        if key in keys:
            keys[key] = tuple(entry(text, line) for text in keys[key])
    keys.setdefault("actions", BLOCK)
    return Rule(Selectors(**selectors), Where("app.toml", line), **keys)


def policy(*rules: Rule, **keys: Any) -> Policy:
    """Write a policy: *ips*, *white_ports*, *programs*, *resolvers*; the rest is [global]."""
    place = Where("main.toml", 9)
    whitelist = Whitelist(
        ips=tuple(entry(text) for text in keys.pop("ips", ())),
        ports=tuple(entry(text) for text in keys.pop("white_ports", ())),
        programs=tuple((program, place) for program in keys.pop("programs", ())),
        resolvers=keys.pop("resolvers", True),
        where=place,
    )
    return Policy(Settings(**keys), whitelist, rules)


def out(to: str, **keys: Any) -> Flow:
    """An outbound flow to ``ADDRESS:PORT[/udp]``."""
    wanted = entry(to)
    address, _, _ = to.strip("[").replace("]", "").rpartition(":")
    protocol = Protocol.TCP if len(wanted.protocols) == 2 else next(iter(wanted.protocols))
    return Flow(ip_address(address), wanted.first_port, protocol, **keys)


def inbound(peer: str, port: int, protocol: Protocol = Protocol.TCP) -> Flow:
    return Flow(ip_address(peer), port, protocol, Direction.IN)


def judge(made: Policy, identity: Identity, flow: Flow, resolution: Resolution = EMPTY) -> Decision:
    return decide(made, resolution, identity, flow)


TELEGRAF = Identity(
    path="/usr/bin/telegraf", exe="telegraf", argv=("/usr/bin/telegraf",), user=1000
)
