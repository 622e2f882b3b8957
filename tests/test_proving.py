# SPDX-License-Identifier: Apache-2.0
"""Who looks whether somebody changed what is in force, at the agent's own end."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from aegis.errors import KernelError
from aegis.proving import Proving
from aegis.tasks import TableLock


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
