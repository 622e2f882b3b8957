# SPDX-License-Identifier: Apache-2.0
"""What the running agent may still do: what the reactions of its policy need, and no more.

Loading is over by then, and cannot be done again: what it takes is given up for good.
What some policy may need stays permitted, since a reload may bring that policy, but is
in effect only while the policy in force needs it.
"""

from collections.abc import Iterator

from aegis.policy.model import Actions, Policy

KILLING = frozenset({"CAP_KILL", "CAP_SYS_PTRACE"})  # the second: to look who it is
OTHER_USERS = frozenset({"CAP_SETUID", "CAP_SETGID"})
# To see packets, once a rule refuses some: raised for that moment only.
ATTACHING = frozenset({"CAP_NET_ADMIN"})
# Hook scripts are started with what is permitted.
# To follow the links in a policy's paths: for that moment only.
READING = frozenset({"CAP_DAC_READ_SEARCH"})
PERMITTED = KILLING | OTHER_USERS | ATTACHING | READING | {"CAP_CHOWN"}


def needed(policy: Policy) -> frozenset[str]:
    """What must be in effect while *policy* is in force."""
    settings = policy.settings
    actions = tuple(_actions(policy))
    others = settings.script_user is not None or policy.notify.urls_file is not None
    scripts = bool(settings.script_dirs) and any(a.notify or a.scripts for a in actions)
    # What a script left behind is found by what is in its environment, and ended.
    kills = others or scripts or any(a.kill for a in actions)
    return (OTHER_USERS if others else frozenset()) | (KILLING if kills else frozenset())


def _actions(policy: Policy) -> Iterator[Actions]:
    yield policy.settings.unconfigured_actions
    for rule in policy.rules:
        yield rule.actions
