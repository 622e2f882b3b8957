# SPDX-License-Identifier: Apache-2.0
"""The largest policy fits the kernel, also while it replaces another; one more is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.bpf.object import BpfObject
from aegis.config.limits import APPS, ENTRIES
from aegis.errors import AegisError, KernelError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Actions, Entry, Policy, Resolution, Rule, Selectors, Where
from tests.size import MIB, map_bytes, tables_of, write_full_policy

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


def test_the_largest_policy_fits_and_can_be_replaced(loaded: BpfObject, tmp_path: Path) -> None:
    """4,096 rules, 65,536 entries, two generations at once; 32 MiB of kernel memory."""
    for version in range(2):
        tables = tables_of(write_full_policy(tmp_path, version))
        assert (len(tables.apps), len(tables.nets)) == (APPS + 1, ENTRIES)
        assert loaded.apply(tables) == version + 1
    entries = sum(1 for _ in loaded.maps["nets"].keys())  # noqa: SIM118 (no dictionary)
    assert entries == ENTRIES  # the old generation is gone
    assert sum(map_bytes(loaded).values()) <= 32 * MIB


def test_one_entry_more_is_an_error_that_names_the_limit(tmp_path: Path) -> None:
    """With the place of the entry that is too many."""
    main = write_full_policy(tmp_path)
    with (tmp_path / "aegis.d" / "zz-one-more.toml").open("w") as file:
        file.write('[whitelist]\nips = ["192.0.2.7"]\n')
    with pytest.raises(AegisError, match="65537 entries in all lists; the limit is 65536"):
        tables_of(main)


def test_one_rule_more_is_an_error_that_names_the_limit(tmp_path: Path) -> None:
    """With the place of the rule that is too many."""
    main = write_full_policy(tmp_path)
    one_more = tmp_path / "aegis.d" / "zz-one-more.toml"
    one_more.write_text("\n[[app]]\nlocal = false\n")
    reason = f"{one_more}:2:1: app: 4097 rules; the limit is 4096"
    with pytest.raises(AegisError, match=reason):
        tables_of(main)


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
