# SPDX-License-Identifier: Apache-2.0
"""Who takes pins away holds the instance's lock: no agent takes them over meanwhile."""

import argparse
from contextlib import ExitStack
from pathlib import Path

import pytest

from aegis import control
from aegis.cli import running, unload
from aegis.errors import ControlError

INSTANCE = "some-cgroup"


class Pins:
    """Sees whether an agent could begin while they go."""

    def __init__(self) -> None:
        self.locked: list[bool] = []

    def remove(self) -> int:
        self.locked.append(INSTANCE in control.running())
        return 1


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pins:
    made = Pins()
    monkeypatch.setattr(control, "RUN", tmp_path / "run")
    monkeypatch.setattr(unload, "STOP_S", 0.1)
    monkeypatch.setattr(unload, "ANSWER_S", 0.1)
    monkeypatch.setattr(unload, "present", lambda: [INSTANCE])
    for name in ("keep_sums", "keep_others"):
        monkeypatch.setattr(unload, name, lambda instance, history: None)
    for module in (unload, running):
        monkeypatch.setattr(module, "all_pins", lambda instance: [made])
    return made


def run_unload() -> int:
    return unload.run(argparse.Namespace(cgroup=None, json=False, history=Path("none")))


def test_nobody_begins_while_unload_is_at_it(pins: Pins) -> None:
    """Neither does its lock stay."""
    assert run_unload() == 0
    assert pins.locked == [True]
    assert control.running() == []


def test_who_does_not_end_is_unloaded_all_the_same(pins: Pins) -> None:
    """Whoever has the lock: a host must not stay cut off."""
    with control.only_one(INSTANCE), pytest.raises(ControlError, match="does not stop"):
        run_unload()
    assert len(pins.locked) == 1


def test_an_agent_that_is_faster_than_the_lock_is_asked_to_end(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ended is not the last: another may begin before the lock is ours."""
    other, seen = ExitStack(), control.running
    begins = [True]

    def look() -> list[str]:
        found = seen()
        if begins:
            begins.clear()
            other.enter_context(control.only_one(INSTANCE))
        return found

    monkeypatch.setattr(control, "running", look)
    monkeypatch.setattr(unload, "STOP_S", 30.0)
    monkeypatch.setattr(control, "LOCK_S", 0.0)
    monkeypatch.setattr(control, "ask", lambda instance, request, patience: other.close())
    assert run_unload() == 0
    assert pins.locked == [True]


def test_no_place_for_a_lock_is_no_reason_to_stay(
    pins: Pins, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a host whose disks are read-only."""

    def refuse(instance: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(control, "only_one", refuse)
    assert run_unload() == 0
    assert pins.locked == [False]
    assert "without the lock of some-cgroup" in capsys.readouterr().err


def test_an_agent_that_unloads_at_its_end_leaves_another_s_pins(
    pins: Pins, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who began after it has what is in force."""
    running.unload(INSTANCE)
    assert pins.locked == [True]
    monkeypatch.setattr(control, "LOCK_S", 0.0)
    with control.only_one(INSTANCE):
        running.unload(INSTANCE)
    assert pins.locked == [True]
    assert "nothing is unloaded: another agent" in capsys.readouterr().err
