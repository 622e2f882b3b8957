# SPDX-License-Identifier: Apache-2.0
"""The core of the product: the verdict as read, and the verdict as looked up, are one."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegis.policy.compile import compile_policy
from aegis.policy.decide import decide
from aegis.policy.match import match_rule
from aegis.policy.model import Identity, Policy, Resolution
from tests.policy.interpreter import classify, tables_verdict
from tests.policy.strategies import flows, identities, policies, resolutions

slow = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@slow
@given(policies(), resolutions(), st.data())
def test_tables_give_the_reference_verdict(
    policy: Policy, resolution: Resolution, data: st.DataObject
) -> None:
    """For any policy and any flow at its edges: same verdict, reason, scope, actions, rule."""
    tables = compile_policy(policy, resolution)
    for _ in range(8):
        identity = data.draw(identities())
        flow = data.draw(flows(policy))
        want = decide(policy, resolution, identity, flow)
        got = tables_verdict(tables, identity, flow)
        assert (got.verdict, got.reason, got.scope, got.actions) == (
            want.verdict,
            want.reason,
            want.scope,
            want.actions,
        )
        assert tables.apps[got.app].rule == want.rule


@slow
@given(policies(), identities())
def test_selectors_lead_to_the_reference_rule(policy: Policy, identity: Identity) -> None:
    """The highest app that matches is the rule that governs."""
    index = classify(compile_policy(policy, Resolution()), identity)
    rule = match_rule(policy, identity)
    assert (policy.rules[index - 1] if index else None) == rule
