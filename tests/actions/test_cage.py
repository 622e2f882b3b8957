# SPDX-License-Identifier: Apache-2.0
"""What a hook script starts ends with it, wherever it hides; and where that is not possible."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aegis import spawn as spawn_module
from aegis.actions import script_job
from aegis.actions.cage import Cages, own_cgroup
from aegis.events.ecs import to_ecs
from aegis.spawn import Child, NoCgroupError, Program
from tests.actions.conftest import Write
from tests.actions.hooks import CONTEXT, Hooks
from tests.actions.processes import PID, processes_of
from tests.events.factory import make_event
from tests.pace import HUNG_S, quickest

# Another session, no environment, no parent, no group: nothing tells whose it is but its cgroup.
HIDE = "env -i setsid sh -c 'setsid sleep {} >/dev/null 2>&1 &'"


def test_a_daemon_without_environment_ends_with_its_script(
    hooks: Hooks, write_script: Write
) -> None:
    mark = f"66.125{PID}"
    write_script("hook", f"#!/bin/sh\n{HIDE.format(mark)}\nsleep 0.2\necho done\n")
    assert hooks.run() < 5
    assert hooks.output() == "done\n"
    assert processes_of(mark) == []


def test_a_daemon_without_environment_ends_at_the_limit(hooks: Hooks, write_script: Write) -> None:
    mark = f"67.125{PID}"
    write_script("hook", f"#!/bin/sh\nwhile :; do {HIDE.format(mark)}; sleep 0.05; done\n")
    hooks.settings["script_timeout"] = 1
    assert 1 <= hooks.run() < 2
    hooks.notice("script-timeout")
    assert processes_of(mark) == []


def test_a_daemon_ends_when_the_agent_stops(hooks: Hooks, write_script: Write) -> None:
    mark = f"68.125{PID}"
    write_script("hook", f"#!/bin/sh\n{HIDE.format(mark)}\nsleep 68.125{PID}\n")

    async def scenario() -> None:
        runner = hooks.runner()
        runner.submit(to_ecs(make_event(), CONTEXT), {}, None)
        while not processes_of(mark):
            await asyncio.sleep(0.01)
        await runner.close()

    asyncio.run(asyncio.wait_for(scenario(), HUNG_S))
    assert processes_of(mark) == []


def test_cgroups_a_script_makes_go_too(hooks: Hooks, write_script: Write) -> None:
    mark = f"69.125{PID}"
    write_script(
        "hook",
        f"#!/bin/bash\nmine={hooks.home}/$(ls {hooks.home} | grep hook)\nmkdir -p $mine/a/b\n"
        f"sleep {mark} & echo $! >$mine/a/b/cgroup.procs\nsleep 0.1\n",
    )
    hooks.run()
    assert processes_of(mark) == []


def test_without_a_cgroup_it_runs_and_that_is_counted_and_told(
    hooks: Hooks, write_script: Write
) -> None:
    write_script("hook", "#!/bin/sh\n")
    hooks.home = None
    hooks.run(events=3)
    assert hooks.told.kinds() == ["scripts-uncaged"] + ["script-finished"] * 3
    assert "no cgroup2" in hooks.told.notices[0][1]


@pytest.mark.parametrize("how", ["", "setsid ", "setsid setsid nohup "])
def test_without_a_cgroup_strays_are_found_by_their_event(
    hooks: Hooks, write_script: Write, how: str
) -> None:
    mark = f"70.125{PID}"
    write_script("hook", f"#!/bin/sh\n{how}sleep {mark} >/dev/null 2>&1 &\nsleep 0.05\n")
    hooks.home = None
    assert hooks.run() < 5
    assert processes_of(mark) == []


def test_a_cgroup_nothing_can_be_put_into_is_given_up(
    hooks: Hooks, write_script: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no controller lets it; the scripts run nevertheless."""

    def refuse(program: Program) -> Child:
        if program.cgroup >= 0:
            raise NoCgroupError(errno.EOPNOTSUPP, "Operation not supported")
        return spawn_module.spawn(program)

    monkeypatch.setattr(script_job, "spawn", refuse)
    write_script("hook", "#!/bin/sh\n")
    hooks.run(events=3)
    assert hooks.told.kinds().count("scripts-uncaged") == 1
    assert hooks.told.kinds().count("script-finished") == 3


def test_a_descriptor_that_is_no_cgroup_is_said(tmp_path: Path) -> None:
    """Both ways in fail: clone3() and the write to cgroup.procs."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    null = os.open("/dev/null", os.O_RDWR)
    program = Program("/bin/true", ["true"], {}, null, null, cgroup=fd)
    with pytest.raises(NoCgroupError):
        spawn_module.spawn(program)
    os.close(fd)
    os.close(null)


def test_what_a_killed_agent_left_is_ended(hooks: Hooks) -> None:
    assert hooks.home is not None
    gone = hooks.home / "aegis-hook-4194999-1"  # above any pid_max of Linux
    mine = hooks.home / f"aegis-hook-{os.getpid()}-7"
    gone.mkdir()
    mine.mkdir()
    Cages(hooks.home)
    assert not gone.exists() and mine.exists()
    mine.rmdir()


def test_our_own_cgroup_is_found(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(
        "32 31 0:29 / /cpu rw - cgroup cgroup rw\n"
        f"41 31 0:38 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    )
    (tmp_path / "cgroup").write_text("8:pids:/x\n0::/system.slice/aegis.service\n")
    assert own_cgroup(tmp_path) is None  # named, but not there
    (tmp_path / "system.slice/aegis.service").mkdir(parents=True)
    assert own_cgroup(tmp_path) == tmp_path / "system.slice/aegis.service"
    (tmp_path / "cgroup").write_text("0::/../../other\n")
    assert own_cgroup(tmp_path) is None


def test_scripts_that_never_ran_leave_a_place_to_one_that_did(
    hooks: Hooks, write_script: Write
) -> None:
    """As many different ones as there are places, hanging at their very first event."""
    names = tuple(f"1{number}-hangs" for number in range(6))
    for name in names:
        write_script(name, f"#!/bin/sh\nexec sleep 71.125{PID}\n")
    write_script("20-quick", "#!/bin/sh\n")
    hooks.settings |= {"script_timeout": 20, "script_jobs": 4}

    async def scenario() -> float:
        waited: list[float] = []
        runner = hooks.runner()
        record = to_ecs(make_event(), CONTEXT)
        runner.submit(record, {}, ("20-quick",))
        await runner.drain()
        runner.submit(record, {}, names)
        for _ in range(5):
            start = time.monotonic()
            runner.submit(record, {}, ("20-quick",))
            ended = hooks.told.kinds().count("script-finished")
            while hooks.told.kinds().count("script-finished") == ended:
                await asyncio.sleep(0.01)
            waited.append(time.monotonic() - start)
        await runner.close()
        return max(waited)

    def run() -> float:
        return asyncio.run(asyncio.wait_for(scenario(), HUNG_S))

    assert quickest(run, 1) < 1


NO_CLONE3 = """
import ctypes, os, struct, sys
from aegis.spawn import Program, spawn
# Load the call's number; 435 (clone3, on every architecture): ENOSYS, as RestrictNamespaces= does.
code = b"".join(struct.pack("=HBBI", *row) for row in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)])
buffer = ctypes.create_string_buffer(code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
filter = Filter(4, ctypes.addressof(buffer))
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0
assert libc.syscall(435, 0, 0) == -1 and ctypes.get_errno() == 38
child = spawn(Program("/bin/cat", ["cat", "/proc/self/cgroup"], {}, 0, 1, cgroup=int(sys.argv[1])))
sys.exit(0 if child.wait(60) and child.returncode == 0 else 1)
"""


def test_where_clone3_is_not_allowed_it_goes_in_by_itself(hooks: Hooks) -> None:
    cage = Cages(hooks.home).make()
    assert cage is not None
    command = [sys.executable, "-c", NO_CLONE3, str(cage.fd)]
    run = subprocess.run(command, pass_fds=(cage.fd,), capture_output=True, text=True, check=True)
    assert f"0::/{cage.path.parent.name}/{cage.path.name}\n" in run.stdout
    assert cage.remove()
