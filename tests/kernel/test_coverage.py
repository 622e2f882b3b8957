# SPDX-License-Identifier: Apache-2.0
"""The coverage matrix, measured again: every way out and in, allowed, blocked and observed."""

import platform
from collections.abc import Callable, Iterator

import pytest

from aegis.bpf.coverage import TRAFFIC, Traffic
from tests.coverage import (
    ABSENT,
    MODES,
    PROPERTY,
    Way,
    kernel_of,
    kernels,
    level,
    read_ways,
    series,
)
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.conftest import Agents
from tests.kernel.measuring import Bench, policy
from tests.kernel.workshop import Workshop

WAYS = read_ways()
RELEASE = platform.release()
KERNEL = kernel_of(RELEASE, kernels(WAYS))

Property = Callable[[str, object], None]
Column = dict[str, str]


@pytest.fixture(scope="module")
def bench(workshop: Workshop, scratch: ScratchCgroup) -> Iterator[Bench]:
    made = Bench(workshop, scratch)
    try:
        yield made
    finally:
        made.close()


class Matrix:
    """Columns, each measured once and only if asked for."""

    def __init__(self, bench: Bench, agents: Agents) -> None:
        self._bench = bench
        self._agents = agents
        self._known: dict[str, Column | Exception] = {}

    def lacking(self) -> Column:
        """Ways that do not go through for a program without a rule, and why not."""
        return self._once("lacking", self._measure_lacking)

    def column(self, mode: str) -> Column:
        return self._once(mode, lambda: self._measure(mode))

    def _once(self, name: str, measure: Callable[[], Column]) -> Column:
        # Also a failure: each try may take a minute.
        if name not in self._known:
            try:
                self._known[name] = measure()
            except Exception as error:
                self._known[name] = error
        known = self._known[name]
        if isinstance(known, Exception):
            raise known
        return known

    def _measure_lacking(self) -> Column:
        self._agents.share(policy("blocked"))
        return self._bench.lacking(WAYS)

    def status(self) -> Column:
        """What is said of each kind of traffic while the blocking rules are in force."""
        return self._once("status", self._read_status)

    def _read_status(self) -> Column:
        agent, _ = self._agents.share(policy("blocked"))
        found = agent.status()["coverage"]
        assert isinstance(found, dict)
        return found

    def _measure(self, mode: str) -> Column:
        here = tuple(way for way in WAYS if way.name not in self.lacking())
        agent, _ = self._agents.share(policy(mode))
        return self._bench.column(here, agent) | self.lacking()


@pytest.fixture(scope="module")
def matrix(bench: Bench, agents: Agents) -> Matrix:
    return Matrix(bench, agents)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_program_without_a_rule_gets_through(way: Way, matrix: Matrix) -> None:
    """So what the others meet is Aegis; only what this kernel does not have may fail here."""
    assert matrix.lacking().get(way.name, ABSENT) == ABSENT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_cell_is_what_happens(
    way: Way, mode: str, matrix: Matrix, record_property: Property
) -> None:
    """What arrived, what the program was told and which hook's event told of it."""
    cell = matrix.column(mode)[way.name]
    kernel = ".".join(map(str, series(RELEASE)))
    record_property(PROPERTY, f"{kernel} {way.name} {mode} {cell}")
    wanted = way.on.get(KERNEL, {}).get(mode)
    # A kernel of another build may lack what the one in the table has.
    if cell == ABSENT and kernel != KERNEL:
        return
    assert cell == wanted


@pytest.mark.parametrize("traffic", TRAFFIC, ids=lambda traffic: traffic.name)
def test_status_says_what_was_measured(traffic: Traffic, matrix: Matrix) -> None:
    """Enforced, only seen or not seen: for each way it is about, and never by version."""
    cells = {mode: matrix.column(mode) for mode in MODES}
    measured = {
        way.name: found
        for way in WAYS
        if way.traffic == traffic.name
        if (found := level({mode: cells[mode][way.name] for mode in MODES}))
    }
    said = matrix.status()[traffic.name]
    assert measured == dict.fromkeys(measured, said)


def test_every_way_is_of_a_traffic_status_knows() -> None:
    """And nothing is said that no way shows."""
    assert {way.traffic for way in WAYS} == {traffic.name for traffic in TRAFFIC}
