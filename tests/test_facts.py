# SPDX-License-Identifier: Apache-2.0
"""A record that cannot be handled costs no other: neither of its batch nor of the next."""

import asyncio
import os
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from aegis.actions.react import Reactions
from aegis.bpf.kernel import Kernel
from aegis.bpf.object import counter_names
from aegis.events.ecs import Record
from aegis.facts import Facts
from tests.test_gaps import OneEntry
from tests.test_lines import context, naming, record

UNKNOWN = 200  # a hook no version of ours has


class Ring:
    """Readable all the time; *batches*: what is in it."""

    def __init__(self, batches: list[list[bytes]]) -> None:
        self._batches = batches
        self._readable, self._writable = os.pipe()
        os.write(self._writable, b"x")

    def fileno(self) -> int:
        return self._readable

    def drain(self) -> list[bytes]:
        return self._batches.pop(0) if self._batches else []

    def close(self) -> None:
        os.close(self._readable)
        os.close(self._writable)


def kernel(ring: Ring) -> Kernel:
    stand_in: Any = SimpleNamespace(
        open_ring=lambda: ring,
        counters=lambda: dict.fromkeys(counter_names(), 0),
        object=SimpleNamespace(maps={"watch": OneEntry(), "noisy": None}),
    )
    return cast("Kernel", stand_in)


def event(**fields: int) -> bytes:
    return record(random.Random(1), **{"generation": 3, "hook": 1, **fields})  # noqa: S311


@pytest.mark.parametrize("watched", [True, False], ids=["as-records", "as-lines"])
def test_a_record_nobody_understands_is_counted_and_the_others_told(
    watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of the ring goes on, and with it the agent."""
    batches = [[event(), event(hook=UNKNOWN), event()], [event(hook=UNKNOWN)], [event()]]
    shown: list[Record] = []
    lines: list[str] = []
    failures: list[dict[str, Any]] = []

    async def read() -> Reactions:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, failure: failures.append(failure))
        reactions = Reactions(context(), on_record=shown.append)
        monkeypatch.setattr(reactions, "log_line", lines.append)
        monkeypatch.setattr(reactions, "wants_record", lambda: watched)
        facts = Facts(kernel(Ring(batches)), naming(), reactions, lambda: None)
        facts.watch()
        while batches:
            await asyncio.sleep(0)
        facts.close()
        return reactions

    reactions = asyncio.run(asyncio.wait_for(read(), 30))
    told = [r["aegis"].get("notice") for r in shown] + [None] * len(lines)
    assert failures == []
    assert told.count(None) == 3
    assert reactions.defects.count >= 2
    assert 1 <= told.count("reaction-failed") <= 2  # as a line and as an event
