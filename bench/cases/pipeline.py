# SPDX-License-Identifier: Apache-2.0
"""Events through all of Python, from the ring to lines in the log; the ring is never empty."""

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

from bench.policies import FAR, SHUT, Shape
from bench.result import Finding, at_least, row
from bench.world import World
from tests.kernel.agent import Agent
from tests.kernel.programs import Talk
from tests.load import UNSEEN

NAME = "pipeline"

_BATCH = 20000
_LOOK_S = 0.1


def measure(world: World) -> Iterator[Finding]:
    rounds, seconds = world.size.of(7, 1), world.size.of(3, 1)
    rates, offered, lost = [], [], []
    with world.places("aegis") as places:
        shape = Shape(keys='actions = ["log", "block"]\ndetent = 0')
        agent = places["aegis"].govern(shape, wrapper=UNSEEN)
        loop = places["aegis"].loop(0)
        for _ in range(rounds):
            agent.log.unlink(missing_ok=True)  # it would fill the disk
            before, begun = _status(agent), time.monotonic()
            offered.append(_flood(loop, begun + seconds))
            took = _last_written(agent) - begun
            after = _status(agent)
            spent = {name: after["counters"][name] - before["counters"][name] for name in _COUNTED}
            rates.append((_written(after) - _written(before)) / took)
            lost.append(spent["lost"] / spent["decided"])
            assert _written(after) - _written(before) <= spent["emitted"] + _OWN, spent
    yield row(
        "events a second into the log, one for each refused sendto()", rates,
        unit="/s", goal=at_least(100_000),
        note=f"lines written, until the last one; one CPU offers all it can, "
        f"{statistics.median(offered):,.0f}/s; {statistics.median(lost):.0%} found the ring full: "
        "counted, and not in the log",
    )  # fmt: skip


_COUNTED = ("decided", "emitted", "lost")
_OWN = 1000  # lines of a round that say something else


def _flood(loop: Talk, until: float) -> float:
    """Datagrams a second that were offered."""
    begun, sent = time.monotonic(), 0
    while (now := time.monotonic()) < until:
        refused = int(loop.say(f"send {FAR} {SHUT} {_BATCH}").split()[1])
        assert refused == _BATCH
        sent += refused
    return sent / (now - begun)


def _status(agent: Agent) -> dict[str, Any]:
    """Also of an agent that says that its own proof got lost in such a flood."""
    finished = agent.command("status", "--json")
    answer = json.loads(finished.stdout)
    assert isinstance(answer, dict)
    return answer


def _written(status: dict[str, Any]) -> int:
    return int(status["agent"]["log"]["written"])


def _last_written(agent: Agent) -> float:
    """When a line more was seen last, to _LOOK_S; by the file, so that nobody is asked."""
    size, last = -1, time.monotonic()
    while time.monotonic() < last + 10 * _LOOK_S:
        now = agent.log.stat().st_size if agent.log.exists() else 0
        if now != size:
            size, last = now, time.monotonic()
        time.sleep(_LOOK_S)
    return last
