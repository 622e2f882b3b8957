# SPDX-License-Identifier: Apache-2.0
"""Execs and forks that a tracing program does not see, since it was preempted by another's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.bpf.kernel import Kernel
from aegis.bpf.layout import layout, text_of
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy, Resolution
from tests.kernel.cgroup import ScratchCgroup

EXEC, FORK = ("aegis_exec", "aegis_exec_again"), ("aegis_fork", "aegis_fork_again")
CONNECT = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
# Who connects is a child of who was executed last, or that one itself.
FORKED = f"import os; os.fork() and os._exit(os.waitstatus_to_exitcode(os.wait()[1])); {CONNECT}"


class Host:
    """Programs of a kernel that is attached to a cgroup of its own."""

    def __init__(self, kernel: Kernel, place: Path) -> None:
        self.kernel, self.place = kernel, place

    def miss(self, *programs: str) -> None:
        """From now on they are not run."""
        for name in programs:
            self.kernel.pins.link_path(name).unlink()
            os.close(self.kernel._links.pop(name))

    def connect(self, code: str = CONNECT) -> int:
        """How many decisions about unknown processes it made."""
        before = self.kernel.counters()
        enter = f'echo $$ >{self.place}/cgroup.procs; exec "$@"'
        subprocess.run(["/bin/sh", "-c", enter, "sh", sys.executable, "-c", code], check=True)
        after = self.kernel.counters()
        assert after["decided"] > before["decided"]
        return after["identity_missing"] - before["identity_missing"]

    def path_of_cat(self) -> str:
        """What is kept of a process that executes it."""
        pipe = subprocess.PIPE
        with subprocess.Popen(["/bin/cat"], stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            print("runs", file=process.stdin, flush=True)
            assert process.stdout.readline() == "runs\n"
            entry = self.kernel.object.maps["procs"].get(process.pid.to_bytes(4, sys.byteorder))
            process.stdin.close()
        assert entry is not None
        return text_of(layout("aegis_proc").unpack(entry)["path"]).decode()


@pytest.fixture
def host() -> Iterator[Host]:
    with ScratchCgroup() as place:
        kernel = Kernel(place.path)
        kernel.start()
        try:
            kernel.apply(compile_policy(Policy(), Resolution()))
            kernel.attach()
            yield Host(kernel, place.path)
        finally:
            kernel.close()
            kernel.pins.remove()


@pytest.mark.parametrize("missed", [(), *((name,) for name in EXEC + FORK)])
def test_what_one_program_misses_the_other_records(host: Host, missed: tuple[str, ...]) -> None:
    host.miss(*missed)
    assert host.path_of_cat() == os.path.realpath("/bin/cat")
    assert host.connect() == host.connect(FORKED) == 0


def test_an_exec_that_nobody_saw_is_not_taken_for_the_one_before(host: Host) -> None:
    """Its entry is still its parent's: it claims nothing, and that is counted."""
    host.miss(*EXEC)
    assert host.connect() > 0


def test_a_fork_that_nobody_saw_claims_nothing(host: Host) -> None:
    """Until it executes something."""
    host.miss(*FORK)
    assert host.connect() == 0
    assert host.connect(FORKED) > 0
