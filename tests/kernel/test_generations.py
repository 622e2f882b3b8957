# SPDX-License-Identifier: Apache-2.0
"""What the maps hold: one generation's entries, whatever happened before."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from aegis._bpf import lib
from aegis.bpf.generation import index_key
from aegis.bpf.object import GENERATION_MAPS, MAPS, BpfObject
from aegis.errors import KernelError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Actions, Entry, Policy, Resolution, Rule, Selectors, Where
from aegis.policy.tables import Tables

HERE = Where("test.toml", 1)


def tables(*networks: str, path: str = "/usr/bin/one") -> Tables:
    remotes = tuple(Entry(text, HERE, ip_network(text)) for text in networks)
    rule = Rule(Selectors(path=path), HERE, Actions(block=True), remotes=remotes)
    return compile_policy(Policy(rules=(rule,)), Resolution())


ONE = tables("192.0.2.0/24", "203.0.113.7/32")
OTHER = tables("198.51.100.0/24", "203.0.113.8/32", "2001:db8::/32")
UNFIT = tables("203.0.113.0/24", path="/" + 300 * "x")  # longer than the kernel keeps


@pytest.fixture
def loaded() -> Iterator[BpfObject]:
    """Loaded, not attached to anything."""
    loaded = BpfObject()
    yield loaded
    loaded.close()


def generations(loaded: BpfObject) -> dict[str, set[bytes]]:
    """The generation numbers in the keys of each map."""
    start = {"nets": 4}
    return {
        name: {key[start.get(name, 0) :][:4] for key in loaded.maps[name].keys()}  # noqa: SIM118
        for name in GENERATION_MAPS
    }


def only(generation: int) -> dict[str, set[bytes]]:
    return {name: {index_key(generation)} for name in GENERATION_MAPS}


def test_a_reload_leaves_nothing_of_the_one_before(loaded: BpfObject) -> None:
    """However often."""
    for wanted in (ONE, OTHER, ONE, ONE):
        generation = loaded.apply(wanted)
        loaded.retire()
        assert generations(loaded) == only(generation)


def test_what_was_not_retired_goes_with_the_next_reload(loaded: BpfObject) -> None:
    """Two generations at most, which is what the tables have room for."""
    for wanted in (ONE, OTHER, ONE):
        generation = loaded.apply(wanted)
        held = {index_key(generation), index_key(generation - 1)}
        assert all(found <= held for found in generations(loaded).values())


def test_a_policy_that_does_not_fit_leaves_the_old_one_alone(loaded: BpfObject) -> None:
    """Neither entries of the failed one, nor any missing; and the next one goes in."""
    generation = loaded.apply(ONE)
    with pytest.raises(KernelError, match="longer than"):
        loaded.apply(UNFIT)
    assert loaded.generation == generation
    assert generations(loaded) == only(generation)
    assert generations_after(loaded, OTHER) == only(loaded.generation)


def generations_after(loaded: BpfObject, wanted: Tables) -> dict[str, set[bytes]]:
    loaded.apply(wanted)
    loaded.retire()
    return generations(loaded)


def fill_up(loaded: BpfObject) -> None:
    """Entries of other generations in every table, and no room left in one."""
    for name in GENERATION_MAPS:
        [(key, value), *_] = loaded.maps[name].items()
        at = 4 if name == "nets" else 0
        first = loaded.generation + 1
        last = first + (lib.AEGIS_NETS_MAX if name == "nets" else 3)
        used = len(list(loaded.maps[name].keys()))
        strays = [key[:at] + index_key(n) + key[at + 4 :] for n in range(first, last - used)]
        loaded.maps[name].fill([(stray, value) for stray in strays])


def test_a_table_that_is_full_leaves_the_old_policy_alone(loaded: BpfObject) -> None:
    """What went in before it was full is taken out again."""
    generation = loaded.apply(ONE)
    fill_up(loaded)
    with pytest.raises(KernelError, match="'nets' is full"):
        loaded.apply(OTHER)
    assert loaded.generation == generation
    assert generations(loaded) == only(generation)


def test_what_a_crash_left_goes_before_the_next_policy_comes(loaded: BpfObject) -> None:
    """An agent that was killed between fill and flip: another one takes its maps over."""
    loaded.apply(ONE)
    fill_up(loaded)
    heir = BpfObject({name: loaded.map_fd(name) for name in MAPS})
    try:
        assert heir.generation == loaded.generation
        assert generations_after(heir, OTHER) == only(heir.generation)
    finally:
        heir.close()
