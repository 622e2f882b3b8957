# SPDX-License-Identifier: Apache-2.0
"""Who looks whether somebody changed what is in force, at the agent's own end."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from aegis.errors import KernelError
from aegis.proving import Proving
from aegis.tasks import TableLock
from tests.pace import HUNG_S


class Closed:
    """A kernel of which all was let go."""

    def evidence(self) -> None:
        raise KernelError("not loaded")


@pytest.mark.parametrize("ends", [True, False])
def test_what_the_agent_lets_go_of_was_not_tampered_with(ends: bool) -> None:
    """Whoever lets go of the tables has them looked at in the next turn: not at the end."""
    told: list[str] = []
    reactions = SimpleNamespace(
        notice=lambda kind, message, fields: told.append(message), flush=lambda: None
    )
    parts: Any = SimpleNamespace(kernel=Closed(), reactions=reactions, say=lambda line: None)

    async def scenario() -> None:
        lock = TableLock()
        proving = Proving(parts, lock, lambda: None)
        with lock.writing():
            looking = asyncio.create_task(proving.look_forever())
            await asyncio.sleep(0)  # it has begun, and does not look while somebody writes
            looking.cancel()
            if ends:
                proving.stop()
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert told == ([] if ends else ["not loaded"])


class Failing:
    """What it looks at fails once, in one of its calls."""

    def __init__(self, failing: str) -> None:
        self.failing, self.looked = failing, 0

    def take(self) -> None:
        self._fail("take")

    def look(self, *, is_brief: bool = False) -> list[str]:
        self.looked += 1
        self._fail("look")
        return []

    def found_writing(self) -> frozenset[str]:
        return frozenset()

    def distrust(self) -> None:
        """Nothing is known to be theirs."""

    def _fail(self, call: str) -> None:
        if self.failing == call:
            self.failing = ""
            raise OSError(5, "no such luck")


@pytest.mark.parametrize("failing", ["take", "look"])
def test_what_cannot_be_looked_at_is_told_and_looked_at_again(failing: str) -> None:
    """It is degraded meanwhile; the agent goes on."""
    told: list[str] = []
    reactions = SimpleNamespace(
        notice=lambda kind, message, fields: told.append(kind), flush=lambda: None
    )
    evidence = Failing(failing)
    kernel = SimpleNamespace(evidence=lambda: evidence)
    parts: Any = SimpleNamespace(kernel=kernel, reactions=reactions, say=lambda line: None)

    async def scenario() -> None:
        looking = asyncio.create_task(Proving(parts, TableLock(), lambda: None).look_forever())
        async with asyncio.timeout(HUNG_S):
            while told != ["tampered", "restored"] and not looking.done():
                await asyncio.sleep(0.05)
        assert not looking.done()
        looking.cancel()

    asyncio.run(scenario())
    assert told == ["tampered", "restored"] and evidence.looked


class Changed(Failing):
    """Somebody changes something as soon as it was taken."""

    def __init__(self) -> None:
        super().__init__("")
        self.brief: list[bool] = []
        self.meanwhile: set[str] = set()

    def look(self, *, is_brief: bool = False) -> list[str]:
        self.brief.append(is_brief)
        return ["a change"] if len(self.brief) > 1 else []

    def found_writing(self) -> frozenset[str]:
        found, self.meanwhile = frozenset(self.meanwhile), set()
        return found


Told = list[tuple[str, str]]


def make_proving(evidence: Failing, lock: TableLock) -> tuple[Proving, Told]:
    told: Told = []
    reactions = SimpleNamespace(
        notice=lambda kind, message, fields: told.append((kind, message)), flush=lambda: None
    )
    kernel = SimpleNamespace(evidence=lambda: evidence)
    parts: Any = SimpleNamespace(kernel=kernel, reactions=reactions, say=lambda line: None)
    return Proving(parts, lock, lambda: None), told


@pytest.mark.parametrize("writes", [False, True])
def test_it_looks_while_a_policy_is_on_its_way(writes: bool) -> None:
    """Names are looked up for seconds under the lock; only while it is written nobody looks."""
    evidence, lock = Changed(), TableLock()
    proving, told = make_proving(evidence, lock)

    async def scenario() -> None:
        looking = asyncio.create_task(proving.look_forever())
        await asyncio.sleep(0.01)
        async with lock:
            with lock.writing() if writes else nullcontext():
                looked = len(evidence.brief)
                await asyncio.sleep(2.5)
                assert (len(evidence.brief) > looked) is not writes
        looking.cancel()

    asyncio.run(scenario())
    assert (("tampered", "a change") in told) is not writes


def test_what_was_found_while_we_wrote_is_told_and_over() -> None:
    """Who planted something for the next policy; before it is written, the rest is compared."""
    evidence, lock = Changed(), TableLock()
    proving, told = make_proving(evidence, lock)

    async def scenario() -> None:
        looking = asyncio.create_task(proving.look_forever())
        await asyncio.sleep(0.01)
        assert evidence.brief == []
        with lock.writing():
            assert evidence.brief == [True]
            evidence.meanwhile = {"something planted"}
        assert told == [("tampered", "something planted")]
        looking.cancel()

    asyncio.run(scenario())
    assert proving.status()["degraded"] == ["something planted"]
