# SPDX-License-Identifier: Apache-2.0
"""The reference verdict: policy-language.md in Python, read top to bottom.

Written from the contract, not from the kernel's tables; a test holds the two
together. Slow and plain on purpose: lists are scanned.
"""

from dataclasses import dataclass, replace

from aegis.policy.address import destination_scope, normalise
from aegis.policy.match import (
    covers,
    find_entry,
    has_port,
    match_rule,
    may_claim,
    whitelisted_program,
)
from aegis.policy.model import (
    Actions,
    Decision,
    Direction,
    Entry,
    Flow,
    Identity,
    Mode,
    Policy,
    Protocol,
    Reason,
    Resolution,
    Rule,
    Scope,
    Verdict,
    Where,
)

RESOLVER_PORT = 53


@dataclass(frozen=True)
class Permission:
    """Something in the policy allows the flow: *entry*, or a key at *where*."""

    entry: Entry | None = None
    where: Where | None = None


def decide(policy: Policy, resolution: Resolution, identity: Identity, flow: Flow) -> Decision:
    """Return what happens to *flow* of *identity*, and why.

    Port 0 is no port: no entry and no ``remote = true`` permits it.
    """
    flow = replace(flow, address=normalise(flow.address))
    rule = match_rule(policy, identity)
    if flow.socket is not None:
        return _decide_socket(policy, identity, flow.socket, rule)
    if flow.direction is Direction.IN:
        return _decide_inbound(policy, resolution, identity, flow, rule)
    scope = destination_scope(flow.address)

    if flow.udp_connect and flow.protocol is Protocol.UDP and flow.port == 0:
        return _quiet(Reason.HARMLESS, scope, rule)
    exempt = program_permission(policy, identity, rule)
    if exempt is not None:
        return _quiet(Reason.PROGRAM, scope, rule, exempt)

    listed = whitelist_permission(policy, resolution, flow)
    if rule is None:
        if listed is not None:
            return _quiet(Reason.WHITELIST, scope, rule, listed)
        return _off_the_map(policy, Reason.UNCONFIGURED, scope, rule)

    allowed = rule_permission(rule, resolution, flow)
    if allowed is not None and may_claim(rule, identity):
        return _quiet(Reason.RULE_ALLOWS, scope, rule, allowed)
    if allowed is not None or rule.ignore:
        # Any file can be given that name: this one has what an unconfigured program has.
        if listed is not None:
            return _quiet(Reason.WHITELIST, scope, rule, listed)
        return _off_the_map(policy, Reason.UNTRUSTED, scope, rule)

    if listed is not None and not rule.strict:
        return _quiet(Reason.WHITELIST, scope, rule, listed)
    return _off_the_map(policy, Reason.RULE_DENIES, scope, rule)


def _decide_inbound(
    policy: Policy, resolution: Resolution, identity: Identity, flow: Flow, rule: Rule | None
) -> Decision:
    """The scope is LISTEN unless the peer is what the rule refuses.

    ``[whitelist] ips`` and ``ports`` are about where programs go, not about who comes.
    ``inbound = false`` stops the watching of programs that no rule speaks of;
    ``listen`` and ``peers`` that were written stay in force.
    """
    exempt = program_permission(policy, identity, rule)
    if exempt is not None:
        return _quiet(Reason.PROGRAM, Scope.LISTEN, rule, exempt)

    if rule is not None and not rule.ignore:
        if not listens(rule, flow):
            return _off_the_map(policy, Reason.RULE_DENIES, Scope.LISTEN, rule)
        if not flow.listening and not accepts_peer(rule, resolution, flow):
            return _off_the_map(policy, Reason.RULE_DENIES, Scope.PEER, rule)
        if may_claim(rule, identity):
            return _quiet(Reason.RULE_ALLOWS, Scope.LISTEN, rule, Permission(where=rule.where))

    if not policy.settings.inbound:
        return _quiet(Reason.HARMLESS, Scope.LISTEN, rule)
    why = Reason.UNCONFIGURED if rule is None else Reason.UNTRUSTED
    return _off_the_map(policy, why, Scope.LISTEN, rule)


def _decide_socket(policy: Policy, identity: Identity, kind: str, rule: Rule | None) -> Decision:
    """A socket is no connection: an unconfigured program may at most be refused it."""
    exempt = program_permission(policy, identity, rule)
    if exempt is not None:
        return _quiet(Reason.PROGRAM, Scope.SOCKET, rule, exempt)
    if rule is not None and not rule.ignore:
        if not makes(rule, kind):
            return _off_the_map(policy, Reason.RULE_DENIES, Scope.SOCKET, rule)
        if may_claim(rule, identity):
            return _quiet(Reason.RULE_ALLOWS, Scope.SOCKET, rule, Permission(where=rule.where))
    if not policy.settings.unconfigured_actions.refuses:
        return _quiet(Reason.HARMLESS, Scope.SOCKET, rule)
    why = Reason.UNCONFIGURED if rule is None else Reason.UNTRUSTED
    return _off_the_map(policy, why, Scope.SOCKET, rule)


def program_permission(policy: Policy, identity: Identity, rule: Rule | None) -> Permission | None:
    """``[whitelist] programs`` (not for a strict rule) and ``ignore = true``; trusted files."""
    if rule is None or not rule.strict:
        named = whitelisted_program(policy.whitelist, identity)
        if named is not None:
            return Permission(where=named[1])
    if rule is not None and rule.ignore and may_claim(rule, identity):
        return Permission(where=rule.where)
    return None


def rule_permission(rule: Rule, resolution: Resolution, flow: Flow) -> Permission | None:
    """What in *rule* allows the outbound *flow*, trusted file or not.

    ``remotes`` count for remote destinations only, ``locals`` for local ones,
    ``ports`` for both; ``remote`` and ``local`` overrule all lists.
    """
    local = destination_scope(flow.address) is Scope.LOCAL
    switch = rule.local if local else rule.remote
    if flow.port == 0 or switch is False:
        return None
    if switch is True:
        return Permission(where=rule.where)
    for entries in (rule.ports, rule.locals if local else rule.remotes):
        entry = find_entry(entries, flow, resolution)
        if entry is not None:
            return Permission(entry, entry.where)
    if local and leaves_local_alone(rule):
        return Permission(where=rule.where)
    return None


def leaves_local_alone(rule: Rule) -> bool:
    """A rule that says where to, but nothing of local, has no say in local.

    One without any destination key allows nothing. ``listen`` and ``peers`` are
    no destinations: a rule with only those allows nothing outbound.
    """
    speaks_of_local = (rule.ports, rule.locals, rule.local) != (None, None, None)
    speaks_of_remote = (rule.remotes, rule.remote) != (None, None)
    return speaks_of_remote and not speaks_of_local


def whitelist_permission(policy: Policy, resolution: Resolution, flow: Flow) -> Permission | None:
    """What every program may reach, local and remote alike."""
    whitelist = policy.whitelist
    for entries in (whitelist.ips, whitelist.ports):
        entry = find_entry(entries, flow, resolution)
        if entry is not None:
            return Permission(entry, entry.where)
    resolvers = map(normalise, resolution.resolvers)
    if whitelist.resolvers and flow.port == RESOLVER_PORT and flow.address in resolvers:
        return Permission(where=whitelist.where)
    return None


def listens(rule: Rule, flow: Flow) -> bool:
    """Our own port: any if ``listen`` was not written."""
    return rule.listen is None or any(has_port(entry, flow) for entry in rule.listen)


def accepts_peer(rule: Rule, resolution: Resolution, flow: Flow) -> bool:
    """Who comes: anyone if ``peers`` was not written. Entries have no ports."""
    return rule.peers is None or any(covers(e, flow.address, resolution) for e in rule.peers)


def makes(rule: Rule, kind: str) -> bool:
    """``raw`` is every raw socket, ``icmp`` the raw ones of ICMP only."""
    return kind in rule.sockets or (kind == "icmp" and "raw" in rule.sockets)


def _quiet(
    reason: Reason, scope: Scope, rule: Rule | None, by: Permission | None = None
) -> Decision:
    """On the map, or nothing to say: no event."""
    by = by or Permission()
    return Decision(Verdict.ALLOWED, reason, scope, Actions(), rule, by.entry, by.where)


def _off_the_map(policy: Policy, reason: Reason, scope: Scope, rule: Rule | None) -> Decision:
    """An event. Only a rule that denies brings its own actions."""
    actions = policy.settings.unconfigured_actions
    if rule is not None and reason is Reason.RULE_DENIES:
        actions = rule.actions
    verdict = Verdict.ALLOWED
    if actions.refuses:
        enforced = policy.settings.mode is Mode.ENFORCE
        verdict = Verdict.BLOCKED if enforced else Verdict.WOULD_BLOCK
    return Decision(verdict, reason, scope, actions, rule, where=rule.where if rule else None)
