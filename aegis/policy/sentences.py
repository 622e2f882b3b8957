# SPDX-License-Identifier: Apache-2.0
"""Decisions in words."""

from ipaddress import IPv6Address

from aegis.policy.address import normalise
from aegis.policy.decide import leaves_local_alone
from aegis.policy.model import (
    Address,
    Decision,
    Direction,
    Flow,
    Reason,
    Rule,
    Scope,
    Verdict,
)

_VERDICTS = {
    Verdict.ALLOWED: "allowed",
    Verdict.BLOCKED: "blocked",
    Verdict.WOULD_BLOCK: "would be blocked",
}


def destination(address: Address, port: int | None = None) -> str:
    """Return *address* and *port* as a policy writes them: ``[2001:db8::1]:443``."""
    address = normalise(address)
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def outcome(decision: Decision) -> str:
    """Return the verdict with its actions: ``blocked (log, kill)``."""
    words = _VERDICTS[decision.verdict]
    if decision.actions.names():
        return f"{words} ({', '.join(decision.actions.names())})"
    return f"{words}, no event"


def why(decision: Decision, flow: Flow) -> str:
    """Return one sentence that says what in the policy led to *decision*."""
    match decision.reason:
        case Reason.RULE_ALLOWS if decision.rule:
            return _why_allowed(decision, decision.rule, flow)
        case Reason.RULE_DENIES if decision.rule:
            return _why_denied(decision, decision.rule, flow)
        case Reason.WHITELIST if decision.entry:
            text = f'"{decision.entry.text}" ({decision.where})'
            return f"[whitelist] allows {text} to every program."
        case Reason.WHITELIST:
            return "[whitelist] resolvers allows port 53 of this host's nameservers."
        case Reason.PROGRAM if decision.rule and decision.where == decision.rule.where:
            return f"The rule at {decision.where} says ignore = true."
        case Reason.PROGRAM:
            return f"[whitelist] programs names this program ({decision.where})."
        case Reason.UNTRUSTED if decision.rule:
            return _why_untrusted(decision.rule)
        case Reason.HARMLESS if flow.socket is not None:
            return "A socket is no connection: nothing to tell of an unconfigured program."
        case Reason.HARMLESS if flow.direction is Direction.IN:
            return "[global] inbound = false: nobody watches this program's inbound."
        case Reason.HARMLESS:
            return "A UDP connect() to port 0 sends nothing."
    return "No [[app]] is about this program."


def _why_allowed(decision: Decision, rule: Rule, flow: Flow) -> str:
    here = f"The rule at {rule.where}"
    if decision.scope is Scope.SOCKET:
        return f"{here} lists {flow.socket} in sockets."
    if decision.entry is not None:
        return f'{here} lists "{decision.entry.text}" ({decision.entry.where}).'
    if flow.direction is Direction.IN:
        if rule.listen is None and rule.peers is None:
            return f"{here} has neither listen nor peers, so inbound is left alone."
        return f"{here} accepts this port and this peer."
    if decision.scope is Scope.LOCAL and rule.local is None and leaves_local_alone(rule):
        return f"{here} says nothing about local destinations, so they are left alone."
    return f"{here} says {decision.scope} = true."


def _why_denied(decision: Decision, rule: Rule, flow: Flow) -> str:
    here = f"The rule at {rule.where}"
    if decision.scope is Scope.SOCKET:
        return f"{here} does not list {flow.socket} in sockets."
    if decision.scope is Scope.LISTEN:
        return f"{here} does not list {flow.port}/{flow.protocol} in listen."
    if decision.scope is Scope.PEER:
        return f"{here} does not list {destination(flow.address)} in peers."
    if flow.port == 0:
        return f"{here} cannot allow port 0: it is no port."
    if (rule.local if decision.scope is Scope.LOCAL else rule.remote) is False:
        return f"{here} says {decision.scope} = false."
    keys = ("ports", "remotes", "locals", "remote", "local")
    if all(getattr(rule, key) is None for key in keys):
        return f"{here} names no destination, so it allows none."
    to = f"{destination(flow.address, flow.port)}/{flow.protocol}"
    return f"{here} does not list {to}, which is {decision.scope}."


def _why_untrusted(rule: Rule) -> str:
    grants = "ignores this program" if rule.ignore else "would allow it"
    return (
        f"The rule at {rule.where} {grants}, but only as a trusted file (root's, not writable"
        " by others, in the host's own root) whose first argument is not made up: this one is"
        " treated as unconfigured."
    )
