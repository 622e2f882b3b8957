# SPDX-License-Identifier: Apache-2.0
"""The largest policy fits the kernel, also while it replaces another; one more is named."""

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network

import pytest

from aegis.bpf.object import BpfObject
from aegis.config.limits import APPS, ENTRIES
from aegis.errors import KernelError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Actions, Entry, Policy, Resolution, Rule, Selectors, Where
from tests.size import MIB, map_bytes

WHERE = Where("size.toml", 1)


@pytest.fixture
def loaded() -> Iterator[BpfObject]:
    made = BpfObject()
    yield made
    made.close()


def rule(number: int, *remotes: Entry) -> Rule:
    return Rule(Selectors(user=number), WHERE, Actions(log=True), remotes=remotes)


def port(first: int, last: int) -> Entry:
    return Entry(f"{first}-{last}", WHERE, first_port=first, last_port=last)


def full_policy(version: int) -> Policy:
    """As many rules and entries as there may be; of another *version* no entry is the same."""
    each = ENTRIES // APPS
    base = int(IPv6Address("2001:db8::"))
    return Policy(
        rules=tuple(
            rule(
                number,
                *(
                    Entry(
                        "entry",
                        WHERE,
                        IPv6Network((base + (number << 80) + (place << 64), 64)),
                        first_port=place + 1 + version,
                        last_port=place + 9,
                    )
                    for place in range(each)
                ),
            )
            for number in range(APPS)
        )
    )


def test_the_largest_policy_fits_and_can_be_replaced(loaded: BpfObject) -> None:
    """4,096 rules, 65,536 entries, two generations at once; 32 MiB of kernel memory."""
    empty = map_bytes(loaded)
    for version in range(2):
        tables = compile_policy(full_policy(version), Resolution())
        assert (len(tables.apps), len(tables.nets)) == (APPS + 1, ENTRIES)
        assert loaded.apply(tables) == version + 1
    loaded.retire()
    entries = sum(1 for _ in loaded.maps["nets"].keys())  # noqa: SIM118 (no dictionary)
    assert entries == ENTRIES  # the old generation is gone
    # A kernel that counts a table before anything is in it tells what it could hold.
    if empty["nets"] == 0:
        assert sum(map_bytes(loaded).values()) <= 32 * MIB


@pytest.mark.parametrize(("count", "fits"), [(4095, True), (4096, False)])
def test_different_lists_of_ports_have_a_limit(count: int, fits: bool, loaded: BpfObject) -> None:
    """Lists of more than one range are kept once each; what is in force stays when over."""
    # Two ports of 91 each: 4,095 different pairs, on few pages.
    pairs = [(1 + 2 * (n % 91), 1001 + 2 * (n // 91)) for n in range(count)]
    rules = tuple(rule(n, port(a, a), port(b, b)) for n, (a, b) in enumerate(pairs))
    tables = compile_policy(Policy(rules=rules), Resolution())
    if fits:
        assert loaded.apply(tables) == 1
        return
    with pytest.raises(KernelError, match="over 4095 different port lists"):
        loaded.apply(tables)
    assert loaded.generation == 0
    assert loaded.apply(compile_policy(Policy(), Resolution())) == 1


def test_selector_texts_that_do_not_fit_are_named(loaded: BpfObject) -> None:
    """Configuration refuses them earlier; the kernel's table must not cut them either."""
    long = Rule(Selectors(exe="x" * 64), WHERE, Actions(log=True))
    with pytest.raises(KernelError, match="exe selector longer than 63 bytes"):
        loaded.apply(compile_policy(Policy(rules=(long,)), Resolution()))
    assert loaded.generation == 0
