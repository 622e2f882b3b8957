# SPDX-License-Identifier: Apache-2.0
"""``generate`` as Hypothesis strategies, for failures that shrink."""

from random import Random

from hypothesis import strategies as st

from aegis.policy.model import Flow, Identity, Policy, Resolution
from tests.policy.generate import (
    edges,
    make_flow,
    make_identity,
    make_policy,
    make_resolution,
)


def randoms() -> st.SearchStrategy[Random]:
    return st.randoms(use_true_random=False)


def policies() -> st.SearchStrategy[Policy]:
    return randoms().map(make_policy)


def resolutions() -> st.SearchStrategy[Resolution]:
    return randoms().map(make_resolution)


def identities(policy: Policy) -> st.SearchStrategy[Identity]:
    return randoms().map(lambda rng: make_identity(rng, policy))


def flows(policy: Policy) -> st.SearchStrategy[Flow]:
    around = edges(policy)
    return randoms().map(lambda rng: make_flow(rng, around))
