# SPDX-License-Identifier: Apache-2.0
"""A policy on trial, as the kernel keeps it: no agent is asked when its time is over."""

import contextlib
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from aegis.bpf.judge import Judge
from aegis.bpf.object import GENERATION_MAPS, MAPS, BpfObject
from aegis.bpf.trial import boot_ns
from aegis.errors import KernelError
from aegis.policy.compile import compile_policy
from aegis.policy.model import (
    Actions,
    Entry,
    Flow,
    Identity,
    Policy,
    Resolution,
    Rule,
    Selectors,
    Verdict,
    Where,
)
from aegis.policy.tables import Tables

HERE = Where("test.toml", 1)
MORE_AND_MORE = (0.4, 4, 40)  # seconds of a trial: a machine may have much else to do
PROGRAM = Identity(path="/usr/bin/one", exe="one", argv=("one",))


def tables(network: str) -> Tables:
    remotes = (Entry(network, HERE, ip_network(network)),)
    rule = Rule(Selectors(path=PROGRAM.path), HERE, Actions(block=True), remotes=remotes)
    return compile_policy(Policy(rules=(rule,)), Resolution())


BEFORE, TRIED = tables("192.0.2.0/24"), tables("198.51.100.0/24")
LISTED = {"before": ip_address("192.0.2.1"), "tried": ip_address("198.51.100.1")}


class House:
    """One object, attached to nothing; its judge is the hooks' own decide()."""

    def __init__(self) -> None:
        self.judge = Judge()
        self.loaded: BpfObject = self.judge._object

    def in_force(self) -> str:
        """Which of the two policies decides; exactly one does."""
        asked = [(PROGRAM, Flow(address, 443)) for address in LISTED.values()]
        verdicts = [one.verdict for one in self.judge.ask(asked)]
        assert sorted(verdicts) == [Verdict.ALLOWED, Verdict.BLOCKED]
        return list(LISTED)[verdicts.index(Verdict.ALLOWED)]

    def adopt(self) -> BpfObject:
        """What the next agent finds."""
        return BpfObject({name: self.loaded.map_fd(name) for name in MAPS})


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    made.loaded.apply(BEFORE)
    made.loaded.retire()
    yield made
    made.judge.close()


def in_seconds(seconds: float) -> int:
    return boot_ns() + int(seconds * 1e9)


def answers(house: House, deadline: int) -> tuple[set[Verdict], set[Verdict]]:
    """To questions that were over before *deadline*, and to those that began after it."""
    seen: list[tuple[int, Verdict, int]] = []
    while not seen or seen[-1][0] < deadline + 200_000_000:
        begun = boot_ns()
        # One question: two could be answered on both sides of the deadline.
        [one] = house.judge.ask([(PROGRAM, Flow(LISTED["tried"], 443))])
        seen.append((begun, one.verdict, boot_ns()))
    after = {verdict for begun, verdict, _ in seen if begun >= deadline}
    return {verdict for *_, verdict, ended in seen if ended < deadline}, after


def test_the_kernel_takes_it_back_by_itself(house: House) -> None:
    """To the tick, also for an identity that was classified under it."""
    for seconds in MORE_AND_MORE:
        deadline = in_seconds(seconds)
        house.loaded.apply(TRIED, deadline)
        house.loaded.retire()  # must not touch what may come back
        before, after = answers(house, deadline)
        if before:
            break
        house.loaded.take_back()
    assert (before, after) == ({Verdict.ALLOWED}, {Verdict.BLOCKED})
    assert house.in_force() == "before"


def test_confirmed_it_stays(house: House) -> None:
    """And what it replaced goes."""
    for seconds in MORE_AND_MORE:
        deadline = in_seconds(seconds)
        house.loaded.apply(TRIED, deadline)
        with contextlib.suppress(KernelError):
            house.loaded.confirm()
            break
        assert boot_ns() > deadline
        house.loaded.take_back()
    house.loaded.retire()
    time.sleep(seconds + 0.1)
    assert house.in_force() == "tried"
    found = set()
    for name in GENERATION_MAPS:
        at = 4 if name == "nets" else 0
        keys = house.loaded.maps[name].keys()
        found |= {int.from_bytes(key[at : at + 4], sys.byteorder) for key in keys}
    assert found == {house.loaded.generation}


def test_what_comes_too_late_confirms_nothing(house: House) -> None:
    """Nor what comes when nothing waits."""
    with pytest.raises(KernelError, match="nothing waits"):
        house.loaded.confirm()
    house.loaded.apply(TRIED, in_seconds(0.05))
    time.sleep(0.1)
    with pytest.raises(KernelError, match="too late"):
        house.loaded.confirm()
    assert house.in_force() == "before"


def test_nothing_else_is_put_in_force_meanwhile(house: House) -> None:
    """There are two halves, and both are needed."""
    house.loaded.apply(TRIED, in_seconds(60))
    with pytest.raises(KernelError, match="on trial"):
        house.loaded.apply(BEFORE)
    assert house.in_force() == "tried"


def test_no_number_is_given_twice(house: House) -> None:
    """A process keeps the class it had under a number: another policy must not have it."""
    given = [house.loaded.generation]
    for _ in range(3):
        given.append(house.loaded.apply(TRIED, in_seconds(60)))
        assert house.in_force() == "tried"
        house.loaded.take_back()
        assert house.in_force() == "before"
    given.append(house.loaded.apply(TRIED))
    assert house.in_force() == "tried"
    assert len(set(given)) == len(given)


@pytest.mark.parametrize("over", [False, True])
def test_an_agent_that_comes_later_finds_it(house: House, over: bool) -> None:
    """Taken back or not, the next policy goes into the half that is not in force."""
    house.loaded.apply(TRIED, in_seconds(0.05 if over else 60))
    time.sleep(0.1)
    heir = house.adopt()
    try:
        trial = heir.trial
        assert trial is not None
        assert (trial.is_over, trial.in_force) == (over, 1 if over else 2)
        heir.take_back()
        assert house.in_force() == "before"
        heir.apply(BEFORE, in_seconds(60))
        assert house.in_force() == "before"
        heir.confirm()
        heir.retire()
        heir.apply(TRIED)
        heir.retire()
        assert house.in_force() == "tried"
    finally:
        heir.close()
