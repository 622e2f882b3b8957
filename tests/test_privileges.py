# SPDX-License-Identifier: Apache-2.0
"""Which capabilities a policy's reactions need."""

import pytest

from aegis.policy.model import Actions, Notify, Policy, Rule, Selectors, Settings, Where
from aegis.privileges import KILLING, OTHER_USERS, PERMITTED, needed

HERE = Where("test.toml", 1)
QUIET = Settings(unconfigured_actions=Actions(log=True))


def with_rule(actions: Actions, settings: Settings = QUIET) -> Policy:
    return Policy(settings, rules=(Rule(Selectors(exe="x"), HERE, actions),))


CASES = [
    pytest.param(Policy(QUIET), frozenset(), id="nothing"),
    pytest.param(with_rule(Actions(log=True, block=True)), frozenset(), id="blocks"),
    pytest.param(with_rule(Actions(kill=True)), KILLING, id="a-rule-kills"),
    pytest.param(
        Policy(Settings(unconfigured_actions=Actions(kill=True))), KILLING, id="others-are-killed"
    ),
    pytest.param(
        with_rule(Actions(notify=True), Settings(QUIET.mode, script_dirs=("/x",))),
        KILLING,
        id="scripts",
    ),
    pytest.param(
        Policy(Settings(script_user=5, unconfigured_actions=Actions(log=True))),
        KILLING | OTHER_USERS,
        id="scripts-of-another-user",
    ),
    pytest.param(
        Policy(QUIET, notify=Notify(urls_file="/x")), KILLING | OTHER_USERS, id="notifications"
    ),
]


@pytest.mark.parametrize(("policy", "wanted"), CASES)
def test_what_a_policy_needs_is_in_effect(policy: Policy, wanted: frozenset[str]) -> None:
    """And nothing else; it is always among what stays permitted."""
    assert needed(policy) == wanted
    assert wanted <= PERMITTED
    assert not {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"} & PERMITTED
