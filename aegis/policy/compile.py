# SPDX-License-Identifier: Apache-2.0
"""Policy → the tables the kernel looks verdicts up in."""

from collections.abc import Iterable, Iterator, Mapping

from aegis.errors import AegisError
from aegis.policy.flatten import (
    Grant,
    address_prefix,
    flatten,
    grants,
    may_be_local,
    may_be_remote,
)
from aegis.policy.garbage import uncollected
from aegis.policy.match import names_path, needs_argv0, needs_trust
from aegis.policy.model import Entry, Mode, Policy, Resolution, Rule, Scope
from aegis.policy.ports import ANY_PORTS, NO_PORTS
from aegis.policy.tables import App, Net, Ports, Selector, Tables

# A test compares these with kernel/aegis.h.
RULES_MAX = 4096  # AEGIS_APPS_MAX less the whitelist
HOSTS_MAX = 65536  # AEGIS_HOSTS_MAX over two generations
NETS_MAX = 65536  # AEGIS_NETS_MAX over two generations

_RESOLVER = Ports(((53, 53),), ((53, 53),))

Nodes = dict[Net, Ports]


def compile_policy(policy: Policy, resolution: Resolution) -> Tables:
    """Return the tables of *policy*; a rule's app is 1 + its place in ``policy.rules``.

    :raises AegisError: naming the limit that *policy* exceeds
    """
    if len(policy.rules) > RULES_MAX:
        raise AegisError(f"{len(policy.rules)} [[app]] rules; the limit is {RULES_MAX}")
    nets: Nodes = {}
    with uncollected():
        apps = [_whitelist_app(policy, resolution, nets)]
        for index, rule in enumerate(policy.rules, start=1):
            apps.append(_rule_app(rule, index, resolution, nets))
    _check_size(nets)
    return Tables(
        mode=policy.settings.mode,
        unconfigured_actions=policy.settings.unconfigured_actions,
        deny_socket_fds=policy.settings.deny_socket_fds,
        apps=tuple(apps),
        nets=nets,
        selectors=tuple(_selectors(policy)),
        kill_budget=policy.settings.kill_budget,
        refuses_inbound=_refuses_inbound(policy),
        watches_inbound=policy.settings.inbound or any(_limits_inbound(policy)),
    )


def _refuses_inbound(policy: Policy) -> bool:
    """Whether some packet that comes in may be refused: only then is each looked at."""
    settings = policy.settings
    if settings.mode is not Mode.ENFORCE:
        return False
    if settings.inbound and settings.unconfigured_actions.refuses:
        return True
    return any(rule.actions.refuses for rule in _limits_inbound(policy))


def _limits_inbound(policy: Policy) -> Iterator[Rule]:
    return (rule for rule in policy.rules if (rule.listen, rule.peers) != (None, None))


def _check_size(nets: Nodes) -> None:
    hosts = sum(net.length == 128 for net in nets)
    for count, limit, what in (
        (hosts, HOSTS_MAX, "exact addresses"),
        (len(nets) - hosts, NETS_MAX, "address prefixes"),
    ):
        if count > limit:
            raise AegisError(f"the policy has {count} {what}; the limit is {limit}")


def _whitelist_app(policy: Policy, resolution: Resolution, nets: Nodes) -> App:
    """App 0: where any program may go. Its LISTEN and PEER are what an unconfigured
    program may do unseen: everything once inbound watching is off, else nothing."""
    whitelist = policy.whitelist
    granted = list(grants((*whitelist.ips, *whitelist.ports), resolution))
    if whitelist.resolvers:
        granted += [(address_prefix(a), _RESOLVER) for a in resolution.resolvers]
    inbound = NO_PORTS if policy.settings.inbound else ANY_PORTS
    base = {
        Scope.REMOTE: _store(0, Scope.REMOTE, granted, nets),
        Scope.LOCAL: _store(0, Scope.LOCAL, granted, nets),
        Scope.LISTEN: inbound,
        Scope.PEER: inbound,
    }
    settings = policy.settings
    return App(None, settings.unconfigured_actions, base, detent=settings.detent)


def _rule_app(rule: Rule, index: int, resolution: Resolution, nets: Nodes) -> App:
    base = {
        scope: ANY_PORTS
        if entries is None
        else _store(index, scope, grants(entries, resolution), nets)
        for scope, entries in _scopes(rule).items()
    }
    return App(
        rule,
        rule.actions,
        base,
        strict=rule.strict,
        ignore=rule.ignore,
        needs_trust=needs_trust(rule),
        needs_argv0=needs_argv0(rule),
        detent=rule.detent,
        sockets=rule.sockets,
    )


def _scopes(rule: Rule) -> Mapping[Scope, tuple[Entry, ...] | None]:
    """Return the entries of each scope; ``None``: all of it is allowed."""
    if rule.ports is None and rule.locals is None and rule.local is None:
        # Silence on local permits it, but only from a rule that speaks of destinations.
        silent = rule.remotes is None and rule.remote is None
        local: tuple[Entry, ...] | None = () if silent else None
    else:
        local = _list(rule.local, rule.ports, rule.locals)
    return {
        Scope.REMOTE: _list(rule.remote, rule.ports, rule.remotes),
        Scope.LOCAL: local,
        Scope.LISTEN: rule.listen,
        Scope.PEER: rule.peers,
    }


def _list(
    switch: bool | None, ports: tuple[Entry, ...] | None, own: tuple[Entry, ...] | None
) -> tuple[Entry, ...] | None:
    """``remote`` or ``local``, where given, overrules the lists."""
    if switch is not None:
        return None if switch else ()
    return (ports or ()) + (own or ())


def _store(app: int, scope: Scope, granted: Iterable[Grant], nets: Nodes) -> Ports:
    """Flatten into *nets* what a flow of *scope* can match; return what any address has."""
    if scope is Scope.LISTEN:
        granted = ((None, ports) for _, ports in granted)
    elif scope is Scope.PEER:
        granted = ((prefix, ANY_PORTS) for prefix, _ in granted)
    else:
        fits = may_be_local if scope is Scope.LOCAL else may_be_remote
        granted = (grant for grant in granted if grant[0] is None or fits(grant[0]))
    base, nodes = flatten(granted)
    for (value, length), ports in nodes.items():
        nets[Net(app, scope, value.to_bytes(16, "big"), length)] = ports
    return base


def _selectors(policy: Policy) -> Iterator[Selector]:
    for index, rule in enumerate(policy.rules, start=1):
        want = rule.selectors
        if not want.count():
            raise AegisError(f"{rule.where}: [[app]] needs at least one selector")
        yield Selector(
            index, want.exe, want.path, want.cmdline, want.user, want.unit, rule.any_namespace
        )
    for program, _ in policy.whitelist.programs:
        if names_path(program):
            yield Selector(0, path=program, whitelist=True)
        else:
            yield Selector(0, exe=program, whitelist=True)
