# SPDX-License-Identifier: Apache-2.0
"""Whom a rule must not kill, how many it may, and who dies along."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aegis.actions.kill import Killer, KillStatus
from aegis.events.event import Event, IdentityFlag, KillBy
from aegis.policy.model import Actions, Settings
from tests.actions.living import event_of
from tests.actions.processes import PID, processes_of
from tests.actions.waiting import wait_until
from tests.pace import HUNG_S

SLEEP = "/usr/bin/sleep"
TREE = Actions(kill=True, kill_tree=True, agent_kills=True)
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(*argv: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def kill(event: Event, **settings: Any) -> tuple[KillStatus, str]:
    result = Killer(Settings(**settings)).kill(event)
    return result.status, result.detail


@pytest.mark.parametrize("listed", ["sleep", SLEEP])
def test_what_never_kill_lists_is_spared(start: Start, listed: str) -> None:
    process = start(SLEEP, "60")
    event = event_of(process.pid, path=SLEEP)
    spared = (KillStatus.PROTECTED, "never_kill lists it")
    assert kill(event, never_kill=("other", listed)) == spared
    unknown = event_of(process.pid, path="anything", identity=IdentityFlag.SEEDED)
    assert kill(unknown, never_kill=(listed,)) == spared  # by what it runs
    assert process.poll() is None
    assert kill(event, never_kill=("other", "/bin/other"))[0] is KillStatus.KILLED


def test_a_program_named_like_a_listed_one_is_killed(start: Start, tmp_path: Path) -> None:
    """A base name is of files of root's alone, as in [whitelist]."""
    shutil.copy(SLEEP, tmp_path / "sshd")
    process = start(tmp_path / "sshd", "60")
    event = event_of(process.pid, path=str(tmp_path / "sshd"), identity=IdentityFlag.HOST_FS)
    assert kill(event, never_kill=("sshd",))[0] is KillStatus.KILLED


def test_a_budget_of_kills_is_kept(start: Start) -> None:
    """The first die; of the others it is said why they did not."""
    killer = Killer(Settings(kill_budget=3))
    processes = [start(SLEEP, "60") for _ in range(5)]
    results = [killer.kill(event_of(process.pid)) for process in processes]
    assert [result.status.value for result in results] == ["killed"] * 3 + ["over-budget"] * 2
    assert results[4].detail == "more than 3 in a minute"
    assert [process.wait(HUNG_S) for process in processes[:3]] == [-9] * 3
    assert [process.poll() for process in processes[3:]] == [None, None]
    assert killer.outcomes == {"killed": 3, "over-budget": 2}
    killer.settings = Settings(kill_budget=4)  # a reload does not forget what was used
    results = [killer.kill(event_of(process.pid)) for process in processes[3:]]
    assert [result.status.value for result in results] == ["killed", "over-budget"]


def test_kills_of_the_kernel_use_the_budget_up(start: Start) -> None:
    killer = Killer(Settings(kill_budget=1))
    process = start(SLEEP, "60")
    killer.kill(event_of(process.pid, kill=KillBy.HOOK))
    assert killer.kill(event_of(process.pid)).status is KillStatus.OVER_BUDGET
    assert process.poll() is None


def test_what_is_skipped_does_not_use_the_budget_up(start: Start) -> None:
    killer = Killer(Settings(kill_budget=1))
    process = start(SLEEP, "60")
    for _ in range(3):
        killer.kill(event_of(process.pid, start_boot_ns=1))
    assert killer.kill(event_of(process.pid)).status is KillStatus.KILLED


def kill_all(mark: str) -> None:
    """Who waits for one of them may end with it."""
    for pid in processes_of(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# None but a sleep ever has "sleep\0": setsid's own command line would have it, too.
FAMILY = (
    "bash -c 'sleep 71{pid} & (sleep 71{pid} & sleep 71{pid}) &"
    ' setsid bash -c "exec sleep 71{pid}" & wait\''
)


@pytest.mark.parametrize("tree", [False, True])
def test_kill_tree_takes_descendants_also_of_other_sessions(start: Start, tree: bool) -> None:
    """Without it the process dies alone."""
    mark = f"71{PID}"
    process = start("bash", "-c", FAMILY.format(pid=PID) + " & wait")
    wait_until(lambda: len(processes_of(f"sleep\0{mark}")) == 4)
    actions = TREE if tree else Actions(kill=True)
    result = Killer(Settings()).kill(event_of(process.pid, actions=actions))
    assert process.wait(HUNG_S) == -9
    try:
        if tree:
            wait_until(lambda: not processes_of(mark))
            assert result.descendants >= 5
        else:
            assert (result.descendants, len(processes_of(f"sleep\0{mark}"))) == (0, 4)
    finally:
        kill_all(mark)


def test_kill_tree_takes_a_family_that_keeps_forking(start: Start) -> None:
    """Whoever is stopped forks no more: none is born behind our back."""
    mark = f"72{PID}"
    process = start("bash", "-c", f"while :; do sleep 72{PID} & sleep 0.001; done")
    wait_until(lambda: len(processes_of(mark)) > 20)
    Killer(Settings()).kill(event_of(process.pid, actions=TREE))
    assert process.wait(HUNG_S) == -9
    wait_until(lambda: not processes_of(f"sleep\0{mark}"))


def test_kill_tree_spares_a_listed_descendant_and_its_own(start: Start, tmp_path: Path) -> None:
    """What never_kill lists goes on undisturbed: not even stopped."""
    mark = f"73{PID}"
    spared = tmp_path / "spared"
    shutil.copy("/bin/bash", spared)
    script = f"{spared} -c 'sleep {mark}; :' & exec sleep 74{PID}"
    process = start("bash", "-c", script)
    wait_until(lambda: bool(processes_of(f"sleep\0{mark}")) and bool(processes_of(f"74{PID}")))
    listed = (str(spared),)
    result = Killer(Settings(never_kill=listed)).kill(event_of(process.pid, actions=TREE))
    assert process.wait(HUNG_S) == -9
    assert result.descendants == 0
    [inner] = processes_of(f"sleep\0{mark}")
    try:
        assert Path(f"/proc/{inner}/stat").read_text().rpartition(")")[2].split()[0] not in "Tt"
    finally:
        kill_all(mark)
