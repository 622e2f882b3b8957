# SPDX-License-Identifier: Apache-2.0
"""A family as large or as deep as its first member likes: all of it dies, and so does that one."""

import inspect
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from aegis.actions import kill as kill_module
from aegis.actions import kill_tree, processes
from aegis.actions.kill import Killer, KillStatus
from aegis.policy.model import Actions, Settings
from tests.actions.living import event_of
from tests.actions.processes import PID, processes_of
from tests.actions.waiting import wait_until
from tests.pace import HUNG_S

TREE = Actions(kill=True, kill_tree=True, agent_kills=True)
MARK = f"family{PID}"
# The mark is an argument of all of them.
WIDE = "import os, signal\nany(os.fork() == 0 for _ in range({count}))\nsignal.pause()"
DEEP = "import os, signal\nall(os.fork() == 0 for _ in range({count}))\nsignal.pause()"
Family = Callable[[str, int], subprocess.Popen[bytes]]


@pytest.fixture
def family() -> Iterator[Family]:
    """Start a first process, and so many more below it."""

    def start(program: str, count: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program.format(count=count), MARK])
        wait_until(lambda: len(processes_of(MARK)) == 1 + count)
        return process

    yield start
    for pid in processes_of(MARK):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_descriptors")
def test_more_children_than_descriptors_die_all(family: Family) -> None:
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    process = family(WIDE, 100)
    result = Killer(Settings()).kill(event_of(process.pid, actions=TREE))
    assert (result.status, result.descendants, result.detail) == (KillStatus.KILLED, 100, "")
    assert process.wait(HUNG_S) == -9
    wait_until(lambda: not processes_of(MARK))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_chain_deeper_than_the_stack_dies(family: Family) -> None:
    count = 200
    process = family(DEEP, count)
    event = event_of(process.pid, actions=TREE)
    before = sys.getrecursionlimit()
    # A chain of a thousand does it, too, but takes a minute to make.
    sys.setrecursionlimit(len(inspect.stack(0)) + count - 20)
    try:
        result = Killer(Settings()).kill(event)
    finally:
        sys.setrecursionlimit(before)
    assert (result.status, result.descendants) == (KillStatus.KILLED, count)
    assert process.wait(HUNG_S) == -9
    wait_until(lambda: not processes_of(MARK))


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RecursionError()])
def test_what_fails_on_the_way_leaves_nobody_alive_or_standing_still(
    family: Family, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The second look at /proc fails: the first one and who was stopped by then are killed."""
    looks = [True]

    def look() -> dict[int, list[int]]:
        if not looks:
            raise error
        looks.pop()
        return processes.children()

    monkeypatch.setattr(kill_tree, "children", look)
    process = family(WIDE, 5)
    event = event_of(process.pid, actions=TREE)
    if isinstance(error, OSError):
        result = Killer(Settings()).kill(event)
        assert result.status is KillStatus.KILLED
        assert result.detail == "not all that descends from it: Too many open files"
    else:
        with pytest.raises(RecursionError):
            Killer(Settings()).kill(event)
    assert process.wait(HUNG_S) == -9
    wait_until(lambda: not processes_of(MARK))


def test_a_number_that_was_given_out_again_is_let_live(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may kill who is stopped, before we do."""
    process = family(WIDE, 1)
    monkeypatch.setattr(kill_tree, "_stop", lambda pid, parents: 1)  # another start
    result = Killer(Settings()).kill(event_of(process.pid, actions=TREE))
    assert (result.status, result.descendants) == (KillStatus.KILLED, 0)
    assert process.wait(HUNG_S) == -9
    assert len(processes_of(MARK)) == 1


def test_numbers_that_seem_to_descend_from_each_other_end() -> None:
    """/proc is not read at one moment."""
    found = kill_tree._below(5, {5: [6], 6: [7], 7: [6, 5, 8]}, lambda pid: False)
    assert list(found) == [6, 7, 8]


def test_whom_aegis_descends_from_cannot_be_looked_up(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody below is taken along; the first one, which was looked at before, is killed."""

    def fail(*_: object) -> NoReturn:
        raise OSError(24, "Too many open files")

    process = family(WIDE, 2)
    monkeypatch.setattr(kill_module, "_Spares", fail)
    assert Killer(Settings()).kill(event_of(process.pid, actions=TREE)).detail
    assert process.wait(HUNG_S) == -9
    assert len(processes_of(MARK)) == 2
