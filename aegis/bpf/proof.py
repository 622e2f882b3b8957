# SPDX-License-Identifier: Apache-2.0
"""A connection that must be refused, made by a child."""

import contextlib
import os
from functools import cache
from pathlib import Path

from aegis._bpf import ffi, lib
from aegis.bpf.cgroup import cgroup2_mount
from aegis.bpf.maps import check

SCRATCH = "aegis-self-test"  # a cgroup, for as long as a self-test takes


def prove(cgroup: Path, procs: int) -> tuple[int, int]:
    """Have a child be refused; return its process and the errno that its connect() got.

    In our own cgroup if *cgroup* governs that, else in one made for it. *procs*: the map.

    :raises KernelError: when the child could not try.
    """
    child, scratch = ffi.new("int *"), cgroup / SCRATCH
    fd = -1
    if not _governs_us(cgroup):
        scratch.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(scratch / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        result = check(lib.aegis_prove(procs, fd, child), "having a child be refused")
    finally:
        if fd >= 0:
            os.close(fd)
            with contextlib.suppress(OSError):  # the next one finds it
                scratch.rmdir()
    return int(child[0]), result


@cache
def _governs_us(cgroup: Path) -> bool:
    text = Path("/proc/self/cgroup").read_text()
    own = next(line for line in text.splitlines() if line.startswith("0::"))
    path = cgroup2_mount() / own.removeprefix("0::").lstrip("/")
    return cgroup in (path, *path.parents)
