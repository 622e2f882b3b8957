# SPDX-License-Identifier: Apache-2.0
"""Which capabilities brokers have, and which brokers a policy needs.

The running agent has none. Loading is over by then, and cannot be done again: what it takes is
given up for good. What reactions take it never has, and what reloads take no more: it asks a
broker (``aegis.broker``).
"""

from collections.abc import Iterator

from aegis.policy.model import Actions, Policy

KILL, SEVER, NAMES, HOOKS = "kill", "sever", "names", "hooks"
PATHS, ATTACH = "paths", "attach"
LOOKING = frozenset({"CAP_SYS_PTRACE"})  # at processes of other users
KILLING = LOOKING | {"CAP_KILL"}
OTHER_USERS = frozenset({"CAP_SETUID", "CAP_SETGID"})
BROKERS = {
    KILL: KILLING,
    # To close a socket, in another network namespace.
    SEVER: LOOKING | {"CAP_SYS_ADMIN", "CAP_NET_ADMIN"},
    NAMES: frozenset[str](),
    # Where there is no cgroup, what a script left behind is found by its environment.
    HOOKS: KILLING | OTHER_USERS,
    # To follow the links in a policy's paths, through directories of other users.
    PATHS: frozenset({"CAP_DAC_READ_SEARCH"}),
    # To see packets, once a rule refuses some.
    ATTACH: frozenset({"CAP_NET_ADMIN"}),
}


def kills(policy: Policy) -> bool:
    """Whether a rule has processes killed."""
    return any(actions.kill for actions in _actions(policy))


def hook_users(policy: Policy) -> frozenset[int]:
    """As whom scripts and the sender of notifications are run; uid 0: as root."""
    settings, actions = policy.settings, tuple(_actions(policy))
    users = set()
    if settings.script_dirs and any(each.notify or each.scripts for each in actions):
        users.add(settings.script_user or 0)
    if policy.notify.urls_file is not None and any(each.notify for each in actions):
        users.add(policy.notify.user)
    return frozenset(users)


def _actions(policy: Policy) -> Iterator[Actions]:
    yield policy.settings.unconfigured_actions
    for rule in policy.rules:
        yield rule.actions
