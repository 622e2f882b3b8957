# SPDX-License-Identifier: Apache-2.0
"""Who looks whether somebody changed what is in force, at the agent's own end."""

import asyncio
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
        await lock.acquire()
        looking = asyncio.create_task(proving.look_forever())
        await asyncio.sleep(0)  # it has begun, and does not look while somebody writes
        looking.cancel()
        if ends:
            proving.stop()
        lock.release()
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert told == ([] if ends else ["not loaded"])


class Failing:
    """What it looks at fails once, in one of its calls."""

    entries = 1

    def __init__(self, failing: str) -> None:
        self.failing, self.looked = failing, 0

    def take(self) -> None:
        self._fail("take")

    def look(self) -> list[str]:
        self.looked += 1
        self._fail("look")
        return []

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
