# SPDX-License-Identifier: Apache-2.0
"""What was lost is told once, with its time, whoever is killed meanwhile."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from aegis.bpf.maps import Map
from aegis.bpf.object import counter_names
from aegis.gaps import LONGEST_NS, Gaps

SECOND = 1_000_000_000


class OneEntry(Map):
    """A map of one entry, without a kernel."""

    def __init__(self) -> None:
        super().__init__("watch", -1, 4, 136)
        self._value = bytes(136)

    def get(self, key: bytes) -> bytes | None:
        return self._value

    def put(self, key: bytes, value: bytes) -> None:
        self._value = value


class Scene:
    """A kernel that loses, and the agents that come one after the other."""

    def __init__(self) -> None:
        self.counters = Counter(dict.fromkeys(counter_names(), 0))
        self.noted = OneEntry()
        self.now = 100 * SECOND
        self.told: list[tuple[str, str, str, int]] = []
        self.inherited: list[dict[str, Any]] = []

    def agent(self) -> Gaps:
        return Gaps(
            lambda: dict(self.counters), self.noted, str, self._tell, boot_ns=lambda: self.now
        )

    def _tell(self, kind: str, message: str, fields: Mapping[str, Any]) -> None:
        event, ours = fields["event"], fields["aegis"]
        if kind == "adopted":
            self.inherited.append({**ours, **event})
        else:
            assert message.startswith(f"{ours['lost']} ")
            self.told.append((kind, event["start"], event["end"], ours["lost"]))

    def second(self, agent: Gaps | None, lost: int = 0) -> None:
        self.now += SECOND
        self.counters["lost"] += lost
        self.counters["decided"] += lost
        if agent is not None:
            agent.look()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def at(second: int) -> str:
    return str(second * SECOND)


def test_nothing_lost_is_nothing_told(scene: Scene) -> None:
    """Neither while it runs nor at its end."""
    agent = scene.agent()
    agent.tell_inherited()
    scene.second(agent)
    agent.close()
    assert (scene.told, scene.inherited) == ([], [])


def test_a_gap_is_told_once_when_it_has_ended(scene: Scene) -> None:
    """However many looks it lasts: from, to and how many."""
    agent = scene.agent()
    scene.second(agent)
    for lost in (5, 6, 7):
        scene.second(agent, lost)
        assert scene.told == []
    scene.second(agent)
    scene.second(agent)
    assert scene.told == [("events-lost", at(101), at(104), 18)]


def test_a_gap_that_does_not_end_is_told_in_parts(scene: Scene) -> None:
    """An administrator must not have to wait for its end; nothing is told twice."""
    agent = scene.agent()
    for _ in range(3 * LONGEST_NS // SECOND):
        scene.second(agent, 1)
    assert len(scene.told) == 2
    agent.close()
    assert sum(lost for *_, lost in scene.told) == 180
    assert all(scene.told[number][2] == scene.told[number + 1][1] for number in range(2))


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_the_next_agent_tells_what_a_killed_one_did_not(looks: int, scene: Scene) -> None:
    """Whether it saw the beginning of the gap or not."""
    killed = scene.agent()
    scene.second(killed)
    for _ in range(looks):
        scene.second(killed, 4)
    scene.second(None, 10)
    following = scene.agent()
    following.tell_inherited()
    scene.second(following)
    scene.second(following)
    end = 103 + looks
    assert scene.told == [("events-lost", at(101), at(end), 10 + 4 * looks)]
    [told] = scene.inherited
    assert (told["start"], told["end"]) == (at(101), at(102 + looks))
    assert told["decided"] >= 10


def test_what_was_told_is_not_told_again_by_the_next_agent(scene: Scene) -> None:
    """After a clean end, and after a kill."""
    for clean in (True, False):
        agent = scene.agent()
        scene.second(agent, 3)
        scene.second(agent)
        if clean:
            agent.close()
        following = scene.agent()
        scene.second(following)
        following.close()
    assert [lost for *_, lost in scene.told] == [3, 3]
