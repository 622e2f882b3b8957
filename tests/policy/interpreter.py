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
from aegis.policy.tables import Selector, Tables


@dataclass(frozen=True)
class Outcome:
    """What the kernel can say: no entries, no places."""

    verdict: Verdict
    reason: Reason
    scope: Scope
    actions: Actions
    app: int


class Interpreter:
    """One generation of tables, ready for many look-ups."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._nets = {
            (net.app, net.scope, net.length, int.from_bytes(net.address, "big")): ports
            for net, ports in tables.nets.items()
        }
        self._lengths = sorted({net.length for net in tables.nets}, reverse=True)

    def verdict(self, identity: Identity, flow: Flow) -> Outcome:
        """Classify, then look up, in the kernel's own order."""
        tables = self.tables
        index = classify(tables, identity)
        app = tables.apps[index]
        address = _bits(flow)
        scope = _scope(address, flow)
        inbound = flow.direction is Direction.IN

        def quiet(reason: Reason) -> Outcome:
            return Outcome(Verdict.ALLOWED, reason, scope, Actions(), index)

        def event(reason: Reason, actions: Actions, scope: Scope = scope) -> Outcome:
            return Outcome(self._refusal(actions), reason, scope, actions, index)

        plain = flow.socket is None and not inbound
        if plain and flow.udp_connect and flow.protocol is Protocol.UDP and not flow.port:
            return quiet(Reason.HARMLESS)
        if whitelisted(tables, identity) and not app.strict:
            return quiet(Reason.PROGRAM)
        claims = identity.trusted or not app.needs_trust
        claims = claims and not (app.needs_argv0 and identity.argv0_false)
        if app.ignore and claims:
            return quiet(Reason.PROGRAM)

        if flow.socket is not None:
            reason = self._socket(index, flow.socket, claims=claims)
            if reason in (Reason.RULE_ALLOWS, Reason.HARMLESS):
                return quiet(reason)
            denied = reason is Reason.RULE_DENIES
            return event(reason, app.actions if denied else tables.unconfigured_actions)

        free = self._contains(0, scope, address, flow)
        if index and not app.ignore:
            if not self._contains(index, scope, address, flow):
                if free and not app.strict and not inbound:
                    return quiet(Reason.WHITELIST)
                return event(Reason.RULE_DENIES, app.actions)
            came = inbound and not flow.listening
            if came and not self._contains(index, Scope.PEER, address, flow):
                return event(Reason.RULE_DENIES, app.actions, Scope.PEER)
            if claims:
                return quiet(Reason.RULE_ALLOWS)
        if free:
            return quiet(Reason.HARMLESS if inbound else Reason.WHITELIST)
        why = Reason.UNTRUSTED if index else Reason.UNCONFIGURED
        return event(why, tables.unconfigured_actions)

    def _socket(self, index: int, kind: str, *, claims: bool) -> Reason:
        app = self.tables.apps[index]
        if index and not app.ignore:
            if not _makes(app.sockets, kind):
                return Reason.RULE_DENIES
            if claims:
                return Reason.RULE_ALLOWS
        if not self.tables.unconfigured_actions.refuses:
            return Reason.HARMLESS
        return Reason.UNTRUSTED if index else Reason.UNCONFIGURED

    def _refusal(self, actions: Actions) -> Verdict:
        if not (actions.block or actions.kill):
            return Verdict.ALLOWED
        return Verdict.BLOCKED if self.tables.mode is Mode.ENFORCE else Verdict.WOULD_BLOCK

    def _contains(self, app: int, scope: Scope, address: bytes, flow: Flow) -> bool:
        """Longest match: exact host, each shorter prefix, then what any address has."""
        ports = self.tables.apps[app].base[scope]
        value = int.from_bytes(address, "big")
        for length in self._lengths:
            masked = value >> (128 - length) << (128 - length)
            found = self._nets.get((app, scope, length, masked))
            if found is not None:
                ports = found
                break
        return any(first <= flow.port <= last for first, last in ports.of(flow.protocol))


def tables_verdict(tables: Tables, identity: Identity, flow: Flow) -> Outcome:
    return Interpreter(tables).verdict(identity, flow)


def classify(tables: Tables, identity: Identity) -> int:
    """The highest app that a rule's selector leads to; 0 without one."""
    found = (s.app for s in tables.selectors if not s.whitelist and _matches(s, identity))
    return max(found, default=0)


def whitelisted(tables: Tables, identity: Identity) -> bool:
    return identity.trusted and any(s.whitelist and _matches(s, identity) for s in tables.selectors)


def _matches(want: Selector, identity: Identity) -> bool:
    if want.path is not None and want.path not in _paths(want, identity):
        return False
    if want.cmdline is not None and want.cmdline not in _cmdline_prefixes(identity):
        return False
    pairs = (
        (want.exe, identity.exe),
        (want.user, identity.user),
        (want.unit, identity.unit),
    )
    return all(value is None or value == actual for value, actual in pairs)


def _paths(want: Selector, identity: Identity) -> tuple[str | None, ...]:
    if want.any_namespace:
        return identity.path, identity.inner_path
    return (identity.path,) if identity.host_fs else ()


def _cmdline_prefixes(identity: Identity) -> set[str]:
    argv = identity.argv or ()
    starts = {0} if identity.script_index is None else {0, identity.script_index}
    return {
        " ".join(argv[start:end]) for start in starts for end in range(start + 1, len(argv) + 1)
    }


def _bits(flow: Flow) -> bytes:
    packed = flow.address.packed
    return bytes(10) + b"\xff\xff" + packed if isinstance(flow.address, IPv4Address) else packed


def _makes(words: tuple[str, ...], kind: str) -> bool:
    return bool({"icmp": {"icmp", "raw"}}.get(kind, {kind}) & set(words))


def _scope(address: bytes, flow: Flow) -> Scope:
    if flow.socket is not None:
        return Scope.SOCKET
    if flow.direction is Direction.IN:
        return Scope.LISTEN
    v4 = address[:12] == bytes(10) + b"\xff\xff"
    if v4 and (address[12] == 127 or address[12:] == bytes(4)):
        return Scope.LOCAL
    if address in (bytes(16), bytes(15) + b"\x01"):
        return Scope.LOCAL
    return Scope.REMOTE
