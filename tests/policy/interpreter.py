# SPDX-License-Identifier: Apache-2.0
"""Tables, evaluated as the kernel does it: the other half of the differential test."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from aegis.policy.model import (
    Actions,
    Direction,
    Flow,
    Identity,
    Mode,
    Protocol,
    Reason,
    Scope,
    Verdict,
)
from aegis.policy.tables import Net, Selector, Tables


@dataclass(frozen=True)
class Outcome:
    """What the kernel can say: no entries, no places."""

    verdict: Verdict
    reason: Reason
    scope: Scope
    actions: Actions
    app: int


def tables_verdict(tables: Tables, identity: Identity, flow: Flow) -> Outcome:
    """Classify, then look up; every test in the kernel's own order."""
    index = classify(tables, identity)
    app = tables.apps[index]
    address = _bits(flow)
    scope = _scope(address, flow)
    inbound = flow.direction is Direction.IN

    def quiet(reason: Reason) -> Outcome:
        return Outcome(Verdict.ALLOWED, reason, scope, Actions(), index)

    def event(reason: Reason, actions: Actions, scope: Scope = scope) -> Outcome:
        verdict = Verdict.ALLOWED
        if actions.block or actions.kill:
            enforce = tables.mode is Mode.ENFORCE
            verdict = Verdict.BLOCKED if enforce else Verdict.WOULD_BLOCK
        return Outcome(verdict, reason, scope, actions, index)

    harmless = flow.udp_connect and flow.protocol is Protocol.UDP and flow.port == 0
    if harmless and not inbound:
        return quiet(Reason.HARMLESS)
    if whitelisted(tables, identity) and not app.strict:
        return quiet(Reason.PROGRAM)
    claims = identity.trusted or not app.needs_trust
    if app.ignore and claims:
        return quiet(Reason.PROGRAM)

    free = _contains(tables, 0, scope, address, flow)
    free_reason = Reason.HARMLESS if inbound else Reason.WHITELIST
    if index and not app.ignore:
        if not _contains(tables, index, scope, address, flow):
            if free and not app.strict and not inbound:
                return quiet(Reason.WHITELIST)
            return event(Reason.RULE_DENIES, app.actions)
        if inbound and not _contains(tables, index, Scope.PEER, address, flow):
            return event(Reason.RULE_DENIES, app.actions, Scope.PEER)
        if claims:
            return quiet(Reason.RULE_ALLOWS)
    if free:
        return quiet(free_reason)
    return event(Reason.UNTRUSTED if index else Reason.UNCONFIGURED, tables.unconfigured_actions)


def classify(tables: Tables, identity: Identity) -> int:
    """The highest app that a rule's selector leads to; 0 without one."""
    found = (s.app for s in tables.selectors if not s.whitelist and _matches(s, identity))
    return max(found, default=0)


def whitelisted(tables: Tables, identity: Identity) -> bool:
    return identity.trusted and any(s.whitelist and _matches(s, identity) for s in tables.selectors)


def _matches(want: Selector, identity: Identity) -> bool:
    if want.path is not None and not (identity.host_fs or want.any_namespace):
        return False
    if want.cmdline is not None and want.cmdline not in _cmdline_prefixes(identity):
        return False
    pairs = (
        (want.exe, identity.exe),
        (want.path, identity.path),
        (want.user, identity.user),
        (want.unit, identity.unit),
    )
    return all(value is None or value == actual for value, actual in pairs)


def _cmdline_prefixes(identity: Identity) -> set[str]:
    argv = identity.argv or ()
    starts = {0} if identity.script_index is None else {0, identity.script_index}
    return {
        " ".join(argv[start:end]) for start in starts for end in range(start + 1, len(argv) + 1)
    }


def _bits(flow: Flow) -> bytes:
    packed = flow.address.packed
    return bytes(10) + b"\xff\xff" + packed if isinstance(flow.address, IPv4Address) else packed


def _scope(address: bytes, flow: Flow) -> Scope:
    if flow.direction is Direction.IN:
        return Scope.LISTEN
    v4 = address[:12] == bytes(10) + b"\xff\xff"
    if v4 and (address[12] == 127 or address[12:] == bytes(4)):
        return Scope.LOCAL
    if address in (bytes(16), bytes(15) + b"\x01"):
        return Scope.LOCAL
    return Scope.REMOTE


def _contains(tables: Tables, app: int, scope: Scope, address: bytes, flow: Flow) -> bool:
    """Longest match: exact host, then each shorter prefix, then what any address has."""
    ports = tables.apps[app].base[scope]
    value = int.from_bytes(address, "big")
    for length in range(128, -1, -1):
        masked = value >> (128 - length) << (128 - length)
        found = tables.nets.get(Net(app, scope, masked.to_bytes(16, "big"), length))
        if found is not None:
            ports = found
            break
    return any(first <= flow.port <= last for first, last in ports.of(flow.protocol))
