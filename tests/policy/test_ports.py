# SPDX-License-Identifier: Apache-2.0
"""Port sets against plain Python sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aegis.policy.ports import NO_PORTS, entry_ports, merge_ranges, union, unite
from aegis.policy.tables import Ports, Ranges
from tests.policy.build import entry

pairs = st.tuples(st.integers(1, 40), st.integers(0, 5)).map(lambda p: (p[0], p[0] + p[1]))
ranges = st.lists(pairs, max_size=8).map(merge_ranges)
port_sets = st.builds(Ports, ranges, ranges)


def members(found: Ranges) -> set[int]:
    return {port for first, last in found for port in range(first, last + 1)}


@given(st.lists(pairs, max_size=8))
def test_merged_ranges_are_sorted_disjoint_and_do_not_touch(given_: list[tuple[int, int]]) -> None:
    """The form that ``Ranges`` promises, with nothing gained or lost."""
    merged = merge_ranges(given_)
    assert members(merged) == members(tuple(given_))
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(merged))


def test_touching_ranges_become_one() -> None:
    """1-2 and 3-4 are 1-4; 1-2 and 4-5 are two."""
    assert merge_ranges([(3, 4), (1, 2)]) == ((1, 4),)
    assert merge_ranges([(1, 2), (4, 5)]) == ((1, 2), (4, 5))


@given(port_sets, port_sets)
def test_union_holds_both(one: Ports, other: Ports) -> None:
    """As sets do, in each protocol."""
    both = union(one, other)
    assert members(both.tcp) == members(one.tcp) | members(other.tcp)
    assert members(both.udp) == members(one.udp) | members(other.udp)
    assert unite([NO_PORTS, one, other]) == both


def test_entry_ports_are_for_its_protocols() -> None:
    """Both, unless it says one."""
    assert entry_ports(entry("10.0.0.0/8:1-9")) == Ports(((1, 9),), ((1, 9),))
    assert entry_ports(entry("53/udp")) == Ports((), ((53, 53),))
    assert entry_ports(entry("53/tcp")) == Ports(((53, 53),), ())
