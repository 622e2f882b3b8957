# SPDX-License-Identifier: Apache-2.0
"""Which brokers a policy's reactions need, and which rights each of them has."""

from dataclasses import replace

import pytest

from aegis.policy.model import Actions, Notify, Policy, Rule, Selectors, Settings, Where
from aegis.privileges import BROKERS, hook_users, kills

HERE = Where("test.toml", 1)
QUIET = Settings(unconfigured_actions=Actions(log=True))

SCRIPTS = replace(QUIET, script_dirs=("/x",))


def with_rule(actions: Actions, settings: Settings = QUIET) -> Policy:
    return Policy(settings, rules=(Rule(Selectors(exe="x"), HERE, actions),))


CASES = [
    pytest.param(Policy(QUIET), False, set(), id="nothing"),
    pytest.param(with_rule(Actions(log=True, block=True)), False, set(), id="blocks"),
    pytest.param(with_rule(Actions(kill=True)), True, set(), id="a-rule-kills"),
    pytest.param(
        Policy(Settings(unconfigured_actions=Actions(kill=True))), True, set(), id="others-die"
    ),
    pytest.param(with_rule(Actions(notify=True), SCRIPTS), False, {0}, id="scripts"),
    pytest.param(with_rule(Actions(log=True), SCRIPTS), False, set(), id="scripts-nobody-runs"),
    pytest.param(
        with_rule(Actions(scripts=("x",)), replace(SCRIPTS, script_user=5)),
        False,
        {5},
        id="scripts-of-another-user",
    ),
    pytest.param(
        replace(with_rule(Actions(notify=True)), notify=Notify(urls_file="/x", user=7)),
        False,
        {7},
        id="notifications",
    ),
]


@pytest.mark.parametrize(("policy", "killing", "users"), CASES)
def test_a_policy_has_the_brokers_started_that_it_needs(
    policy: Policy, killing: bool, users: set[int]
) -> None:
    """And no other."""
    assert kills(policy) is killing
    assert hook_users(policy) == users


def test_no_broker_has_what_another_does() -> None:
    """Each has only what its own kind of reaction takes; none may load a program."""
    assert BROKERS["kill"] == {"CAP_KILL", "CAP_SYS_PTRACE"}
    assert BROKERS["names"] == frozenset()
    assert BROKERS["paths"] == {"CAP_DAC_READ_SEARCH"}
    assert BROKERS["attach"] == {"CAP_NET_ADMIN"}
    assert not any({"CAP_BPF", "CAP_PERFMON"} & rights for rights in BROKERS.values())
    assert "CAP_SYS_ADMIN" not in BROKERS["hooks"] | BROKERS["kill"]
