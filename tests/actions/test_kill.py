# SPDX-License-Identifier: Apache-2.0
"""Kill hits the process of the event or nobody. Real processes, all our own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aegis.actions.kill import KillStatus
from aegis.actions.processes import spared_pids
from aegis.events.event import IdentityFlag, KillBy
from tests.actions.living import TICK_NS, event_of, kill_process
from tests.actions.waiting import wait_until
from tests.events.factory import make_event
from tests.pace import HUNG_S

ROOT = Path(__file__).parents[2]
SLEEP = "/usr/bin/sleep"
Start = Callable[..., subprocess.Popen[bytes]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a namespace")


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_process_of_the_event_is_killed(start: Start) -> None:
    process = start(SLEEP, "60")
    result = kill_process(event_of(process.pid))
    assert (result.status, result.pid) == (KillStatus.KILLED, process.pid)
    assert process.wait(HUNG_S) == -9


@pytest.mark.parametrize("name", ["a) R 1 (b", "\n", "x\x1b[2J", "日本"])
def test_a_hostile_name_does_not_confuse(start: Start, tmp_path: Path, name: str) -> None:
    shutil.copy(SLEEP, tmp_path / name)
    process = start(str(tmp_path / name), "60")
    assert kill_process(event_of(process.pid)).status is KillStatus.KILLED
    assert process.wait(HUNG_S) == -9


def test_another_start_time_is_another_process(start: Start) -> None:
    process = start(SLEEP, "60")
    event = event_of(process.pid)
    for shift in (-TICK_NS, TICK_NS):
        other = event_of(process.pid, start_boot_ns=event.start_boot_ns + shift)
        assert kill_process(other).status is KillStatus.OTHER
    assert process.poll() is None


RECYCLE = """
import subprocess, time
from pathlib import Path
from tests.actions.living import event_of, kill_process
first = subprocess.Popen(["sleep", "60"])
event = event_of(first.pid)
first.kill(); first.wait()
time.sleep(0.05)
Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
second = subprocess.Popen(["sleep", "600"])
assert second.pid == first.pid, (first.pid, second.pid)
print(kill_process(event).status, second.poll())
print(kill_process(event_of(second.pid)).status, second.wait(600))
"""


@needs_root
def test_a_recycled_number_is_spared() -> None:
    """In a PID namespace of its own the same number really is given out again."""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", RECYCLE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("not-the-same-process None\nkilled -9\n", "")


EXEC_LATER = f"import os, sys; sys.stdin.read(1); os.execv('{SLEEP}', ['sleep', '60'])"


def test_an_exec_in_between_spares_the_new_program(start: Start) -> None:
    process = start(sys.executable, "-c", EXEC_LATER)
    event = event_of(process.pid)
    assert process.stdin
    process.stdin.write(b"x")
    process.stdin.flush()
    exe = Path(f"/proc/{process.pid}/exe")
    wait_until(lambda: exe.readlink().name == "sleep")
    result = kill_process(event)
    assert (result.status, process.poll()) == (KillStatus.OTHER, None)
    assert "another program" in result.detail


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param({"identity": IdentityFlag.SEEDED}, id="seeded"),
        pytest.param({"identity": IdentityFlag.LOST}, id="lost"),
        pytest.param({"exec_boot_ns": 0}, id="older-than-the-agent"),
    ],
)
def test_without_a_recorded_file_the_start_time_decides(
    start: Start, unknown: dict[str, Any]
) -> None:
    process = start(SLEEP, "60")
    wrong = {"inode": 1, "device": 1}
    assert kill_process(event_of(process.pid, **wrong)).status is KillStatus.OTHER
    assert kill_process(event_of(process.pid, **wrong, **unknown)).status is KillStatus.KILLED


def test_a_deleted_and_replaced_file_is_still_the_one_that_runs(
    start: Start, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    shutil.copy(SLEEP, program)
    process = start(str(program), "60")
    event = event_of(process.pid)
    program.unlink()
    shutil.copy(SLEEP, program)  # a package upgrade
    assert kill_process(event).status is KillStatus.KILLED


NO_LEADER = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_leader_that_ended_does_not_save_its_threads(start: Start) -> None:
    process = start(sys.executable, "-c", NO_LEADER)
    event = event_of(process.pid)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    assert kill_process(event).status is KillStatus.KILLED
    assert process.wait(HUNG_S) == -9


def test_who_has_ended_is_gone(start: Start) -> None:
    process = start(SLEEP, "60")
    event = event_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert kill_process(event).status is KillStatus.GONE
    process.wait()
    assert kill_process(event).status is KillStatus.GONE


def test_a_number_that_became_a_thread_is_gone(start: Start) -> None:
    process = start(sys.executable, "-c", NO_LEADER.replace("ctypes.CDLL", "time.sleep(60) #"))
    assert process.stdout and process.stdout.readline() == b"ready\n"
    tasks = {int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()}
    [thread] = tasks - {process.pid}
    assert kill_process(replace(event_of(process.pid), pid=thread)).status is KillStatus.GONE
    assert process.poll() is None


def kernel_threads() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[6]) & 0x00200000:
            found.append(int(entry.parent.name))
    return found


def test_init_and_kernel_threads_are_protected() -> None:
    for pid in (0, 1, -1):
        assert kill_process(make_event(pid=pid)).status is KillStatus.PROTECTED
    flagged = make_event(pid=os.getpid() + 1, identity=IdentityFlag.KTHREAD)
    assert kill_process(flagged).status is KillStatus.PROTECTED
    threads = kernel_threads()
    if not threads:
        pytest.skip("no kernel thread visible in this PID namespace")
    fields = Path(f"/proc/{threads[0]}/stat").read_text().rpartition(")")[2].split()
    event = make_event(pid=threads[0], start_boot_ns=int(fields[19]) * TICK_NS)
    assert kill_process(event).status is KillStatus.PROTECTED


SPARE_PARENTS = """
import os
from tests.actions.living import event_of, kill_process
for pid in (os.getpid(), os.getppid(), int(os.environ["GRANDPARENT"])):
    print(kill_process(event_of(pid)).status, flush=True)
"""


def test_aegis_and_its_parents_are_protected(tmp_path: Path) -> None:
    """Asked to kill itself, its shell and its shell's shell, a child kills nobody."""
    (tmp_path / "child.py").write_text(SPARE_PARENTS)
    inner = '"$0" "$1"; echo inner lives'
    outer = f'export GRANDPARENT=$$; sh -c \'{inner}\' "$0" "$1"; echo outer lives'
    done = subprocess.run(
        ["sh", "-c", outer, sys.executable, str(tmp_path / "child.py")],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    assert done.stdout == "protected\n" * 3 + "inner lives\nouter lives\n"


@needs_root
def test_what_the_kernel_refuses_has_failed(start: Start) -> None:
    process = start(SLEEP, "60")
    event = event_of(process.pid, identity=IdentityFlag.SEEDED)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        result = kill_process(event)
        fine = result.status is KillStatus.FAILED and result.detail == "Operation not permitted"
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert process.poll() is None


def test_whom_tracing_has_killed_was_killed_and_not_gone(start: Start) -> None:
    """Also when its number is another's by now. What tracing missed is done here, and said so."""
    process = start(SLEEP, "60")
    event = event_of(process.pid, kill=KillBy.TRACING)
    other = replace(event, start_boot_ns=event.start_boot_ns - TICK_NS)
    seen = []
    for each in (other, event, event):
        result = kill_process(each)
        seen.append((result.status, result.by))
    assert process.wait(HUNG_S) == -9
    killed = KillStatus.KILLED
    assert seen == [(killed, KillBy.TRACING), (killed, KillBy.AGENT), (killed, KillBy.TRACING)]


def test_whom_tracing_may_not_kill_is_protected() -> None:
    result = kill_process(make_event(pid=1, kill=KillBy.TRACING))
    assert (result.status, result.by) == (KillStatus.PROTECTED, KillBy.AGENT)


def test_the_kernel_spares_what_we_descend_from() -> None:
    assert {os.getpid(), os.getppid()} <= spared_pids()
    assert 1 not in spared_pids()
