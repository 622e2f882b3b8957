# SPDX-License-Identifier: Apache-2.0
"""Starting a program in clean surroundings, in a session and, if wanted, a cgroup of its own.

Not ``subprocess``: what it starts can only be moved to a cgroup afterwards, when
it may have forked already. What is born in a cgroup cannot leave it by forking.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aegis._bpf import ffi, lib

_POLL_S = 0.005


class NoCgroupError(OSError):
    """The program may not be put into the cgroup; it was not started."""


@dataclass(frozen=True, slots=True)
class Program:
    """*path* is executed; its directory is ``/``, its umask 077, every signal as at first.

    Of descriptors it has *stdin*, *output* (twice) and *keep*, which keeps its number.
    *user*: uid, gid and groups; None: ours. *cgroup*: a directory's descriptor.
    """

    path: str | bytes
    argv: Sequence[str | bytes]
    env: Mapping[str, str]
    stdin: int
    output: int
    keep: int = -1
    cgroup: int = -1
    user: tuple[int, int, tuple[int, ...]] | None = None


class Child:
    """A process of ours. *returncode*: as of ``subprocess``, once it was reaped."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Reap it, if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float) -> bool:
        """Whether it ended within *seconds*; blocks so long."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_S)
        return self.returncode is not None


def spawn(program: Program) -> Child:
    """Start *program*; returns once it is executed. Takes 20 ms where clone3(2) is not allowed.

    :raises NoCgroupError: if it cannot be put into its cgroup
    :raises OSError: if it cannot be executed
    """
    argv = [ffi.new("char[]", os.fsencode(arg)) for arg in program.argv]
    env = [ffi.new("char[]", os.fsencode(f"{key}={value}")) for key, value in program.env.items()]
    arrays = [ffi.new("char *[]", [*texts, ffi.NULL]) for texts in (argv, env)]
    path = ffi.new("char[]", os.fsencode(program.path))
    uid, gid, groups = program.user or (0, 0, ())
    numbers = ffi.new("uint32_t[]", groups or [0])
    request = ffi.new(
        "struct aegis_spawn *",
        {
            **{"path": path, "argv": arrays[0], "envp": arrays[1]},
            **{"in": program.stdin, "out": program.output, "keep": program.keep},
            **{"cgroup_fd": program.cgroup, "as_user": program.user is not None},
            **{"uid": uid, "gid": gid, "groups": numbers, "groups_count": len(groups)},
        },
    )
    no_cgroup = ffi.new("int *")
    pid = lib.aegis_spawn(request, no_cgroup)
    if pid < 0:
        kind = NoCgroupError if no_cgroup[0] else OSError
        raise kind(-pid, os.strerror(-pid))
    return Child(pid)
