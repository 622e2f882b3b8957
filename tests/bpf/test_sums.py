# SPDX-License-Identifier: Apache-2.0
"""Sums from the kernel's maps into history, and a crash between any two steps of it."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aegis._bpf import lib
from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout
from aegis.bpf.maps import Map
from aegis.bpf.object import BpfObject
from aegis.bpf.sums import KernelSums
from aegis.events.event import IdentityFlag
from aegis.events.facts import Fact, Program
from aegis.events.history import History
from aegis.recording import Recorder
from tests.actions.told import Told
from tests.kernel import settings

CURL = Program("/usr/bin/curl", IdentityFlag.HOST_FS | IdentityFlag.TRUSTED)


@pytest.fixture(scope="module")
def loaded() -> Iterator[BpfObject]:
    """The real maps; no program is attached, so only a test puts something in."""
    if os.geteuid() != 0 and not settings.REQUIRED:
        pytest.skip("loads the BPF object")
    made = BpfObject()
    key = layout("aegis_program").pack(identity=int(CURL.identity), path=CURL.path.encode())
    made.maps["programs"].put(key, (1).to_bytes(4, "little"))
    yield made
    made.close()


class House:
    """The maps, one history, and agents that come and go."""

    def __init__(self, loaded: BpfObject, folder: Path) -> None:
        self.loaded, self.path, self.told = loaded, folder / "history.db", Told()
        self.sums = KernelSums(loaded.maps)
        self.decided = self.sums.epoch().taken

    def decide(self, port: int, times: int = 1) -> None:
        """As the kernel would add it up: above 100 in a slot, else in the table."""
        epoch = self.sums.epoch().current
        made = layout("aegis_slot")
        key: dict[str, int | bytes] = {"epoch": epoch, "program": 1, "port": port}
        key |= {"protocol": 6, "addr": bytes(15) + b"1"}
        sums = {"count": times, "first_boot_ns": 1000, "last_boot_ns": 2000}
        if port > 100:
            table = self.loaded.maps["slots"]
            place = index_key((epoch & 1) * lib.AEGIS_SLOTS + port)
            sums["count"] += made.unpack(table.get(place) or bytes(made.size))["sum.count"]
            parts = {f"key.{name}": value for name, value in key.items()}
            parts |= {f"sum.{name}": value for name, value in sums.items()}
            table.put(place, made.pack(**parts, state=lib.AEGIS_SLOT_READY))
        else:
            table, made = self.loaded.maps["history"], layout("aegis_history")
            place = layout("aegis_history_key").pack(**key)
            sums["count"] += made.unpack(table.get(place) or bytes(made.size))["count"]
            table.put(place, made.pack(**sums))
        self.decided += times

    def agent(self) -> Recorder:
        return Recorder(self.sums, lambda: self.decided, self.path, self.told)

    def record(self) -> None:
        asyncio.run(self.agent().record())

    def facts(self) -> dict[int, Fact]:
        with closing(History(self.path, read_only=True)) as history:
            return {fact.port: fact for fact in history.facts()}

    def assert_balanced(self) -> None:
        assert self.decided == sum(self.sums.kept().values())


@pytest.fixture
def house(loaded: BpfObject, tmp_path: Path) -> House:
    return House(loaded, tmp_path)


class Crash(BaseException):
    """What no handler of ours catches: as good as SIGKILL."""


def test_sums_become_facts_and_leave_the_kernel(house: House) -> None:
    """One row for a flow, whichever epochs it came in; what stays in the kernel is nothing."""
    house.decide(443, times=3)
    house.decide(53)
    house.record()
    house.decide(443, times=4)
    house.record()
    facts = house.facts()
    assert {port: fact.decisions for port, fact in facts.items()} == {443: 7, 53: 1}
    assert facts[443].program == CURL and facts[443].protocol == 6
    assert house.sums.kept()["pending"] == 0
    house.assert_balanced()


@pytest.mark.parametrize(
    ("owner", "step", "done"),
    [
        pytest.param(KernelSums, "close_epoch", True, id="after-closing"),
        pytest.param(KernelSums, "read_closed", True, id="after-reading"),
        pytest.param(History, "take", False, id="before-keeping"),
        pytest.param(History, "take", True, id="after-keeping"),
        pytest.param(Map, "clear", False, id="before-deleting"),
        pytest.param(Map, "clear", True, id="after-deleting"),
    ],
)
def test_an_agent_killed_at_any_step_loses_and_doubles_nothing(
    owner: type, step: str, done: bool, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next agent takes over; each decision is in history once."""
    house.decide(443, times=5)
    house.decide(53)
    real = getattr(owner, step)

    def crash(*args: object, **words: object) -> None:
        if done:
            real(*args, **words)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, crash)
        with pytest.raises(Crash):
            house.record()
    house.decide(443, times=2)
    house.assert_balanced()
    house.record()
    house.record()  # what came after the crash was of a later epoch
    assert {port: fact.decisions for port, fact in house.facts().items()} == {443: 7, 53: 1}
    assert house.sums.kept()["pending"] == 0
    house.assert_balanced()


def test_a_file_that_fails_costs_nothing_and_is_told_once(house: House) -> None:
    """The kernel goes on adding up; when the file serves again, all of it is there."""
    house.path.mkdir()
    agent = house.agent()
    for _ in range(3):
        house.decide(443, times=2)
        asyncio.run(agent.record())
        if agent.error is None:
            break
    assert house.told.kinds() == ["history-failed"] and "Is a directory" in house.told.notices[0][1]
    house.path.rmdir()
    asyncio.run(agent.record())
    asyncio.run(agent.record())
    assert house.told.kinds() == ["history-failed", "history-restored"]
    assert house.facts()[443].decisions == 6
    house.assert_balanced()


def test_a_busy_table_of_programs_is_cleared_and_numbers_keep_their_meaning(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process keeps its program's number for life, the kernel's table only has room for some."""
    monkeypatch.setattr("aegis.bpf.sums.ROOM_FOR", 0)
    house.decide(443)
    house.record()
    assert house.sums.programs() == {}
    house.decide(53)
    house.record()
    assert house.facts()[53].program == CURL
