# SPDX-License-Identifier: Apache-2.0
"""What /proc says of the file a process runs."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aegis.actions import processes
from aegis.actions.kill import Killer, KillStatus
from aegis.actions.processes import running_file, runs_file
from aegis.events.event import IdentityFlag
from aegis.policy.model import Actions, Settings
from tests.actions.living import event_of
from tests.pace import HUNG_S

SLEEP = "/usr/bin/sleep"
Start = Callable[[Path], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(path: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([path, "60"])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("name", ["sshd", "sshd (deleted)"])
def test_never_kill_spares_a_program_whose_file_was_replaced(
    start: Start, tmp_path: Path, name: str, tree: bool
) -> None:
    """As after the upgrade of a package; by the name it has, whatever that is."""
    program = tmp_path / name
    shutil.copy(SLEEP, program)
    process = start(program)
    program.unlink()
    shutil.copy(SLEEP, program)
    assert running_file(process.pid)[0] == str(program)
    actions = Actions(kill=True, kill_tree=tree, agent_kills=True)
    event = event_of(process.pid, path="", identity=IdentityFlag.SEEDED, actions=actions)
    result = Killer(Settings(never_kill=(str(program),))).kill(event)
    assert (result.status, process.poll()) == (KillStatus.PROTECTED, None)


def test_a_file_whose_name_ends_so_is_no_other(start: Start, tmp_path: Path) -> None:
    """Else anybody's "sshd (deleted)" would be sshd."""
    program = tmp_path / "sshd (deleted)"
    shutil.copy(SLEEP, program)
    process = start(program)
    assert running_file(process.pid)[0] == str(program)
    event = event_of(process.pid, identity=IdentityFlag.SEEDED)
    never = (str(tmp_path / "sshd"),)
    assert Killer(Settings(never_kill=never)).kill(event).status is KillStatus.KILLED
    assert process.wait(HUNG_S) == -9


def test_mounts_are_read_only_if_need_be(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process makes them, as many as it likes, and the agent waits meanwhile."""
    program = tmp_path / "program"
    shutil.copy(SLEEP, program)
    pid = start(program).pid
    read: list[int] = []
    known = processes._mount_device

    def look(pid: int, mount_id: str) -> int | None:
        read.append(pid)
        return known(pid, mount_id)

    monkeypatch.setattr(processes, "_mount_device", look)
    status = os.stat(program)  # noqa: PTH116
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    assert runs_file(pid, device, status.st_ino)
    assert not runs_file(pid, device, status.st_ino + 1)
    assert read == []
    assert not runs_file(pid, device + 1, status.st_ino)
    assert len(read) == 1
