# SPDX-License-Identifier: Apache-2.0
"""Port sets: the number and the pages say exactly the ranges."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis._bpf import lib
from aegis.bpf.portsets import PortSets
from aegis.errors import KernelError
from aegis.policy.ports import merge_ranges
from aegis.policy.tables import ANY_PORT, Ranges

PORTS = st.integers(1, 65535)


def listed(sets: PortSets, number: int, port: int) -> bool:
    """As ``port_listed()`` in kernel/decide.bpf.h reads it."""
    low, high = number & 0xFFFF, number >> 16
    if low:
        return low <= port <= high
    if not high:
        return False
    page = int.from_bytes(dict(sets.directories())[high][2 * (port // 1024) :][:2], sys.byteorder)
    word = dict(sets.pages())[page][8 * (port // 64 % 16) :][:8]
    return bool(int.from_bytes(word, sys.byteorder) >> port % 64 & 1)


@given(st.lists(st.tuples(PORTS, PORTS), max_size=6), st.lists(PORTS, max_size=20))
def test_a_port_is_listed_exactly_when_a_range_has_it(
    pairs: list[tuple[int, int]], more: list[int]
) -> None:
    """At and beside every edge, and anywhere else."""
    ranges = merge_ranges((min(pair), max(pair)) for pair in pairs)
    sets = PortSets()
    number = sets.number(ranges)
    edges = {port for pair in pairs for end in pair for port in (end - 1, end, end + 1)}
    for port in {*edges, *more, 1, 65535}:
        wanted = any(first <= port <= last for first, last in ranges)
        assert listed(sets, number, port) == wanted, port


def test_one_range_needs_no_page() -> None:
    """The common case costs the kernel no look-up."""
    sets = PortSets()
    assert sets.number(()) == 0
    assert sets.number(((8086, 8086),)) == 8086 | 8086 << 16
    assert sets.number(ANY_PORT) == 1 | 65535 << 16
    assert sets.directories() == []


def test_equal_lists_share_one_directory() -> None:
    sets = PortSets()
    ranges: Ranges = ((80, 80), (443, 443))
    assert sets.number(ranges) == sets.number(((80, 80), (443, 443)))
    assert len(sets.directories()) == 1


def test_too_many_different_lists_are_an_error_that_says_so() -> None:
    """Never a list that quietly means another."""
    sets = PortSets()
    with pytest.raises(KernelError, match="different port lists: too many"):
        for port in range(lib.AEGIS_DIRS_MAX):
            sets.number(((1, 1), (3 + port, 3 + port)))
