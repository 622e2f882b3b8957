# SPDX-License-Identifier: Apache-2.0
"""Which rule, with which actions, a record of a generation means."""

from collections import OrderedDict
from typing import Any

from aegis.bpf.ring import REASONS
from aegis.policy.model import Actions, Policy, Reason

UNCONFIGURED = "unconfigured"


class Naming:
    """The policies of the last *kept* generations."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._policies: OrderedDict[int, Policy] = OrderedDict()

    def add(self, generation: int, policy: Policy) -> None:
        self._policies[generation] = policy
        while len(self._policies) > self._kept:
            self._policies.popitem(last=False)

    def name(self, record: dict[str, Any]) -> tuple[str, Actions]:
        """Return ``file:line`` or "unconfigured", and the actions in force.

        A record of an earlier agent's generation is named by that number; its
        actions are not known: it is logged.
        """
        policy = self._policies.get(record["generation"])
        if policy is None:
            return f"generation {record['generation']}", Actions(log=True)
        app, reason = record["app"], REASONS[record["reason"]]
        rule = policy.rules[app - 1] if app else None
        if rule is None:
            return UNCONFIGURED, policy.settings.unconfigured_actions
        if reason is Reason.RULE_DENIES:
            return str(rule.where), rule.actions
        # An untrusted file: the rule's permission is void, its place still explains.
        return str(rule.where), policy.settings.unconfigured_actions
