# SPDX-License-Identifier: Apache-2.0
"""Which rule, with which actions, a record of a generation means."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from aegis.bpf.ring import REASONS
from aegis.policy.model import Actions, Policy, Reason, Where
from aegis.policy.tables import Tables

UNCONFIGURED = "unconfigured"


@dataclass(frozen=True)
class _Names:
    """What of a policy names a record; its entries, tens of MB, are not kept."""

    rules: tuple[tuple[Where, Actions], ...]
    unconfigured: Actions


class Naming:
    """The names of the last *kept* generations."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self.version = 0  # changes when another name may be given
        self._known: OrderedDict[int, _Names] = OrderedDict()

    def add(self, generation: int, policy: Policy) -> None:
        rules = tuple((rule.where, rule.actions) for rule in policy.rules)
        self._add(generation, _Names(rules, policy.settings.unconfigured_actions))

    def add_tables(self, generation: int, tables: Tables) -> None:
        """The same for a generation whose policy is not known, only what was made of it."""
        named = ((app.rule, app.actions) for app in tables.apps[1:])
        rules = tuple((rule.where, actions) for rule, actions in named if rule is not None)
        self._add(generation, _Names(rules, tables.unconfigured_actions))

    def _add(self, generation: int, names: _Names) -> None:
        self.version += 1
        self._known[generation] = names
        while len(self._known) > self._kept:
            self._known.popitem(last=False)

    def name(self, record: dict[str, Any]) -> tuple[str, Actions]:
        """Return ``file:line`` or "unconfigured", and the actions in force.

        A record of an earlier agent's generation is named by that number; its
        actions are not known: it is logged.
        """
        names = self._known.get(record["generation"])
        if names is None:
            return f"generation {record['generation']}", Actions(log=True)
        app, reason = record["app"], REASONS[record["reason"]]
        if not app:
            return UNCONFIGURED, names.unconfigured
        where, actions = names.rules[app - 1]
        # An untrusted file: the rule's permission is void, its place still explains.
        return str(where), actions if reason is Reason.RULE_DENIES else names.unconfigured
