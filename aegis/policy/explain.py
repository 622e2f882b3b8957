# SPDX-License-Identifier: Apache-2.0
"""Why a verdict is what it is, and what would change it; asks only ``decide``."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from aegis.policy.address import normalise
from aegis.policy.decide import decide
from aegis.policy.match import match_rule, needs_trust
from aegis.policy.model import (
    Actions,
    Decision,
    Direction,
    Entry,
    Flow,
    Identity,
    Mode,
    Policy,
    Reason,
    Resolution,
    Rule,
    Scope,
    Verdict,
    Where,
    Whitelist,
)
from aegis.policy.sentences import destination, outcome, why

_ADDED = Where("", 0)


@dataclass(frozen=True)
class Change:
    """One thing done otherwise, and what the answer would be then."""

    what: str
    decision: Decision

    def __str__(self) -> str:
        return f"{self.what}: {outcome(self.decision)}"


@dataclass(frozen=True)
class Explanation:
    """*why*: one sentence. *whitelist*: what ``[whitelist]`` did or would have done."""

    decision: Decision
    why: str
    whitelist: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Case:
    policy: Policy
    resolution: Resolution
    identity: Identity
    flow: Flow

    def decide(self) -> Decision:
        return decide(self.policy, self.resolution, self.identity, self.flow)

    def with_rule(self, rule: Rule, other: Rule | None) -> "_Case":
        """The same with *other*, or nothing, in place of *rule*."""
        rules = (r if r is not rule else other for r in self.policy.rules)
        kept = tuple(r for r in rules if r is not None)
        return replace(self, policy=replace(self.policy, rules=kept))

    def with_settings(self, **settings: Mode | Actions | bool) -> "_Case":
        changed = replace(self.policy.settings, **settings)  # type: ignore[arg-type]
        return replace(self, policy=replace(self.policy, settings=changed))


def explain(policy: Policy, resolution: Resolution, identity: Identity, flow: Flow) -> Explanation:
    """Return the reference verdict of *flow* and its reasons."""
    case = _Case(policy, resolution, identity, flow)
    decision = case.decide()
    changes = []
    for what, other in _alternatives(case, decision):
        changed = other.decide()
        if _differs(changed, decision):
            changes.append(Change(what, changed))
    return Explanation(decision, why(decision, flow), _whitelist(case, decision), tuple(changes))


def _differs(one: Decision, other: Decision) -> bool:
    return (one.verdict, one.actions) != (other.verdict, other.actions)


def _whitelist(case: _Case, decision: Decision) -> str:
    """Found out by taking it away, and by taking ``strict`` away."""
    bare = replace(case.policy, whitelist=Whitelist(resolvers=False))
    without = replace(case, policy=bare).decide()
    if without != decision and decision.reason in (Reason.WHITELIST, Reason.PROGRAM):
        return f"it decided; without it: {outcome(without)}"
    rule = decision.rule
    if rule is not None and rule.strict:
        lenient = case.with_rule(rule, replace(rule, strict=False)).decide()
        if lenient.reason in (Reason.WHITELIST, Reason.PROGRAM) and lenient.where != rule.where:
            place = f" ({lenient.where})" if lenient.where else ""
            return f"it would allow this{place}, but the rule is strict"
    if case.flow.socket is not None:
        return "its addresses and ports are not about sockets"
    if case.flow.direction is Direction.IN:
        return "its addresses and ports are not about inbound"
    if decision.reason in (Reason.RULE_ALLOWS, Reason.PROGRAM, Reason.HARMLESS):
        return "not asked: decided before it"
    return "nothing in it matches"


def _alternatives(case: _Case, decision: Decision) -> Iterator[tuple[str, _Case]]:
    """What might change the answer; not all of it will."""
    if decision.rule is not None:
        yield from _other_rule(case, decision, decision.rule)
    else:
        yield from _other_policy(case)
    yield from _other_identity(case)
    settings = case.policy.settings
    mode = Mode.OBSERVE if settings.mode is Mode.ENFORCE else Mode.ENFORCE
    yield f'with mode = "{mode}"', case.with_settings(mode=mode)
    word = "false" if settings.inbound else "true"
    yield f"with inbound = {word}", case.with_settings(inbound=not settings.inbound)


def _other_rule(case: _Case, decision: Decision, rule: Rule) -> Iterator[tuple[str, _Case]]:
    if decision.reason is Reason.RULE_DENIES:
        what, opened = _opened(case.flow, decision.scope, rule)
        yield f"{what} of {rule.where}", case.with_rule(rule, opened)
    if decision.verdict is Verdict.ALLOWED:
        blocking = replace(rule, actions=replace(rule.actions, allow=False, block=True))
        yield f'with "block" in actions of {rule.where}', case.with_rule(rule, blocking)
    word = "false" if rule.strict else "true"
    strict = replace(rule, strict=not rule.strict)
    yield f"with strict = {word} at {rule.where}", case.with_rule(rule, strict)
    if needs_trust(rule) and not case.identity.trusted:
        lifted = replace(rule, untrusted_file=True)
        yield f"with untrusted_file = true at {rule.where}", case.with_rule(rule, lifted)
    without = case.with_rule(rule, None)
    following = match_rule(without.policy, case.identity)
    then = f", so that {following.where} governs" if following else ""
    yield f"without the rule at {rule.where}{then}", without


def _other_policy(case: _Case) -> Iterator[tuple[str, _Case]]:
    """For a program without a rule."""
    actions = case.policy.settings.unconfigured_actions
    if not actions.refuses:
        blocking = replace(actions, allow=False, block=True)
        changed = case.with_settings(unconfigured_actions=blocking)
        yield 'with "block" in unconfigured_actions', changed
    entry = _address_entry(case.flow)
    whitelist = case.policy.whitelist
    wider = replace(whitelist, ips=(*whitelist.ips, entry))
    changed = replace(case, policy=replace(case.policy, whitelist=wider))
    yield f'with "{entry.text}" in [whitelist] ips', changed


def _other_identity(case: _Case) -> Iterator[tuple[str, _Case]]:
    identity = case.identity
    if identity.trusted:
        other = replace(identity, trusted=False)
        yield "for an untrusted file of that name", replace(case, identity=other)
    else:
        other = replace(identity, trusted=True, host_fs=True)
        yield "for a file of root's in the host's own root", replace(case, identity=other)


def _opened(flow: Flow, scope: Scope, rule: Rule) -> tuple[str, Rule]:
    """The rule with what is missing for *flow*, and that in words."""
    if flow.socket is not None:
        return f'with "{flow.socket}" in sockets', replace(
            rule, sockets=(*rule.sockets, flow.socket)
        )
    key, entry = _missing_entry(flow, scope)
    opened: dict[str, object] = {key: (*(getattr(rule, key) or ()), entry)}
    if key in ("remotes", "locals"):
        opened[key.removesuffix("s")] = None  # the switch, which would overrule the list
    return f'with "{entry.text}" in {key}', replace(rule, **opened)  # type: ignore[arg-type]


def _missing_entry(flow: Flow, scope: Scope) -> tuple[str, Entry]:
    """The key and the narrowest entry that would allow *flow* in *scope*."""
    if scope is Scope.LISTEN:
        text = f"{flow.port}/{flow.protocol}"
        return "listen", _entry(text, None, flow)
    if scope is Scope.PEER:
        return "peers", _address_entry(flow)
    text = f"{destination(flow.address, flow.port)}/{flow.protocol}"
    key = "locals" if scope is Scope.LOCAL else "remotes"
    return key, _entry(text, ip_network(normalise(flow.address)), flow)


def _entry(text: str, network: IPv4Network | IPv6Network | None, flow: Flow) -> Entry:
    protocols = frozenset({flow.protocol})
    return Entry(text, _ADDED, network, None, flow.port, flow.port, protocols)


def _address_entry(flow: Flow) -> Entry:
    """As in ``[whitelist] ips`` and ``peers``."""
    return Entry(destination(flow.address), _ADDED, ip_network(normalise(flow.address)))
