# SPDX-License-Identifier: Apache-2.0
"""The core of the product: the verdict as read, and the verdict as looked up, are one."""

import os
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegis.policy.compile import compile_policy
from aegis.policy.decide import decide
from aegis.policy.match import match_rule
from aegis.policy.model import Flow, Identity, Policy, Reason, Resolution, Scope
from tests.policy.generate import (
    edges,
    make_flow,
    make_identity,
    make_policy,
    make_resolution,
)
from tests.policy.interpreter import Interpreter, classify
from tests.policy.strategies import flows, identities, policies, resolutions

TRIPLES = int(os.environ.get("AEGIS_TRIPLES", "100000"))
FLOWS_EACH = 50  # of one policy

few = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(
    policy: Policy, resolution: Resolution, kernel: Interpreter, identity: Identity, flow: Flow
) -> tuple[Reason, Scope]:
    """Same verdict, reason, scope, actions and rule; which reason and scope it was."""
    want = decide(policy, resolution, identity, flow)
    got = kernel.verdict(identity, flow)
    assert (got.verdict, got.reason, got.scope, got.actions) == (
        want.verdict,
        want.reason,
        want.scope,
        want.actions,
    ), (policy, resolution, identity, flow)
    assert kernel.tables.apps[got.app].rule == want.rule
    return want.reason, want.scope


def test_tables_give_the_reference_verdict() -> None:
    """Policies, identities, and flows at the edges of what the policy mentions."""
    seed = int(os.environ.get("AEGIS_SEED", Random().randrange(1 << 32)))  # noqa: S311
    print(f"AEGIS_SEED={seed}")
    rng = Random(seed)  # noqa: S311
    seen = set()
    for _ in range(TRIPLES // FLOWS_EACH):
        policy, resolution = make_policy(rng), make_resolution(rng)
        kernel = Interpreter(compile_policy(policy, resolution))
        around = edges(policy)
        for _ in range(FLOWS_EACH):
            identity, flow = make_identity(rng, policy), make_flow(rng, around)
            seen.add(check(policy, resolution, kernel, identity, flow))
    # None of the ways to decide went untried.
    assert {reason for reason, _ in seen} == set(Reason)
    assert {scope for _, scope in seen} == set(Scope)


@few
@given(policies(), resolutions(), st.data())
def test_tables_give_the_reference_verdict_shrinking(
    policy: Policy, resolution: Resolution, data: st.DataObject
) -> None:
    """The same, fewer, but a failure comes out small."""
    kernel = Interpreter(compile_policy(policy, resolution))
    for _ in range(4):
        identity, flow = data.draw(identities(policy)), data.draw(flows(policy))
        check(policy, resolution, kernel, identity, flow)


@few
@given(policies(), st.data())
def test_selectors_lead_to_the_reference_rule(policy: Policy, data: st.DataObject) -> None:
    """The highest app that matches is the rule that governs."""
    identity = data.draw(identities(policy))
    index = classify(compile_policy(policy, Resolution()), identity)
    rule = match_rule(policy, identity)
    assert (policy.rules[index - 1] if index else None) == rule
