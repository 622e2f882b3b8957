# SPDX-License-Identifier: Apache-2.0
"""A policy survives being printed and read again, and so do its tables."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings

from aegis.config.entries import parse_destination
from aegis.config.load import load_lone
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy
from tests.config.conftest import Etc
from tests.config.printer import meaning, print_entry, print_policy
from tests.config.test_fuzz import Memory
from tests.policy.generate import make_policy, make_resolution
from tests.policy.strategies import policies

RESOLUTION = make_resolution(Random(1))  # noqa: S311 (repeatable on purpose)


def elsewhere(policy: Policy) -> Policy:
    """Paths that are no link on any host: reading would resolve them."""

    def moved(path: str) -> str:
        return path.replace("/usr/", "/0/0/", 1)  # no longer than it was

    programs = tuple((moved(program), where) for program, where in policy.whitelist.programs)
    rules = [
        replace(rule, selectors=replace(rule.selectors, path=moved(rule.selectors.path)))
        if rule.selectors.path
        else rule
        for rule in policy.rules
    ]
    whitelist = replace(policy.whitelist, programs=programs)
    return replace(policy, whitelist=whitelist, rules=tuple(rules))


def assert_survives(policy: Policy, memory: Memory) -> None:
    """Read back it means the same, and the kernel is given the same."""
    memory.write(print_policy(policy))
    again = load_lone(memory.path).policy
    assert meaning(again) == meaning(policy)
    wanted, got = (compile_policy(meaning(p), RESOLUTION) for p in (policy, again))
    assert got == wanted


@settings(max_examples=50, deadline=None)
@given(policies())
def test_random_policies_survive(policy: Policy) -> None:
    """Whatever the language can say, in any order of its rules."""
    with Memory() as memory:
        assert_survives(elsewhere(policy), memory)


def test_many_random_policies_survive() -> None:
    """More of them, quicker, and from other seeds each time."""
    seed = Random().randrange(1 << 32)  # noqa: S311
    print(f"seed {seed}")
    rng = Random(seed)  # noqa: S311
    with Memory() as memory:
        for _ in range(300):
            assert_survives(elsewhere(make_policy(rng)), memory)


@pytest.mark.parametrize(
    "text",
    [
        "8086",
        "8000-8100",
        "53/udp",
        "10.0.0.0/8",
        "10.0.0.0/8:443",
        "192.0.2.7/32:8000-8100/tcp",
        "2001:db8::/32",
        "[2001:db8::/32]:443",
        "[2001:db8::1/128]:1-65535/udp",
        "bob.com",
        "bob.com:8086/tcp",
    ],
)
def test_an_entry_is_printed_as_it_is_written(text: str) -> None:
    assert print_entry(parse_destination(text)) == text


def test_hostile_texts_survive(etc: Etc) -> None:
    """Quotes, escapes, controls and other scripts are texts like any other."""
    name = 'a"b\\\\\\u0001\\u007f\\n é\\u202e'.replace('"', '\\"')
    loaded = etc.lone(f'[[app]]\nexe = "{name}"\ncmdline = "x {name}"\nports = ["1"]')
    with Memory() as memory:
        assert_survives(loaded.policy, memory)
    [rule] = loaded.policy.rules
    assert rule.selectors.exe == 'a"b\\\x01\x7f\n é\u202e'


def test_another_policy_is_told_apart() -> None:
    """Were places all that ``meaning`` kept, everything above would pass."""
    rng = Random(7)  # noqa: S311
    means = [meaning(make_policy(rng)) for _ in range(50)]
    assert all(one != other for one, other in pairwise(means))
