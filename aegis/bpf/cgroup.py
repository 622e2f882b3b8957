# SPDX-License-Identifier: Apache-2.0
"""Where cgroup2 is mounted, and what an attach point is called."""

import os
from encodings import unicode_escape  # noqa: F401 decode() would look for it among files
from pathlib import Path

from aegis.errors import KernelError

BPFFS = Path("/sys/fs/bpf")
PINS = BPFFS / "aegis"


def cgroup2_mount(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path:
    """Return the cgroup2 mount; on hybrid hosts it is not ``/sys/fs/cgroup``.

    :raises KernelError: when there is none.
    """
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, mount_point = left.split()[3:5]
        if right.split()[0] == "cgroup2" and root == "/":
            return Path(mount_point.encode().decode("unicode_escape"))
    raise KernelError("no cgroup2 mount: mount one, e.g. mount -t cgroup2 none /sys/fs/cgroup")


def instance_name(cgroup: Path) -> str:
    """``root``, or ``cgroup-ID``: one agent and one set of pins for each.

    :raises KernelError: when *cgroup* is not a cgroup2 directory.
    """
    mount = cgroup2_mount()
    try:
        here, root = cgroup.stat(), mount.stat()
    except OSError as error:
        raise KernelError(f"{cgroup}: {error.strerror}") from None
    if here.st_dev != root.st_dev or not (cgroup / "cgroup.procs").exists():
        raise KernelError(f"{cgroup}: not a directory below the cgroup2 mount {mount}")
    return "root" if here.st_ino == root.st_ino else f"cgroup-{here.st_ino}"


def open_cgroup(cgroup: Path) -> int:
    """Return a descriptor of the directory; the caller closes it."""
    return os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
