# SPDX-License-Identifier: Apache-2.0
"""What of ours outlives an agent: ``/sys/fs/bpf/aegis/INSTANCE/ABI/{maps,links}/NAME``.

Root only. Another ABI's folder is an older or newer agent's: its programs go on
deciding until ours are attached, then it is removed.
"""

import contextlib
import os
import shutil
import stat
from pathlib import Path

from aegis._bpf import ffi, lib
from aegis.bpf.cgroup import BPFFS, PINS
from aegis.bpf.maps import check
from aegis.errors import KernelError

BPF_FS_MAGIC_NAME = "bpf"
UNFINISHED = "-new"
COMPLETE = "complete"
INCOMPLETE = "-incomplete"


def mount_bpffs() -> None:
    """Make sure a BPF file system is at ``/sys/fs/bpf``.

    :raises KernelError: when it cannot be mounted.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[4] == str(BPFFS) and right.split()[0] == BPF_FS_MAGIC_NAME:
            return
    check(lib.aegis_mount_bpffs(str(BPFFS).encode()), f"mounting a BPF file system at {BPFFS}")


def abi() -> str:
    return str(ffi.string(lib.aegis_abi()).decode())


class Pins:
    """The pins of one instance and one ABI; *folder* need not exist yet."""

    def __init__(self, instance: str, abi_name: str | None = None) -> None:
        self.instance = PINS / instance
        self.folder = self.instance / (abi_name or abi())

    def exists(self) -> bool:
        return (self.folder / "maps").is_dir()

    def is_complete(self) -> bool:
        """Whether a start came to its end here: only then may it be adopted."""
        return (self.folder / COMPLETE).is_dir()

    def complete(self) -> None:
        """Mark it; a folder, since bpffs has no plain files."""
        (self.folder / COMPLETE).mkdir(mode=0o700, exist_ok=True)

    def create(self) -> None:
        """Make the folders, root only.

        :raises KernelError: when something there is not root's alone.
        """
        for folder in (PINS, self.instance, self.folder, self.folder / "maps",
                       self.folder / "links"):  # fmt: skip
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if status.st_uid != 0 or not stat.S_ISDIR(status.st_mode):
                raise KernelError(f"{folder}: not a directory of root's")
            folder.chmod(0o700)

    def check(self) -> None:
        """Return if nobody but root can have changed or opened what is pinned here.

        :raises KernelError: naming the first place where others could.
        """
        for place in (PINS, self.instance, self.folder, *sorted(self.folder.rglob("*"))):
            status = place.lstat()
            if status.st_uid != 0 or status.st_mode & 0o077:
                owner, mode = status.st_uid, stat.S_IMODE(status.st_mode)
                raise KernelError(
                    f"{place}: belongs to uid {owner}, mode {mode:04o}: others than root may have "
                    "changed it; end the agent, `aegis unload`, and start again"
                )

    def map_path(self, name: str) -> Path:
        return self.folder / "maps" / name

    def link_path(self, name: str) -> Path:
        return self.folder / "links" / name

    def set_aside(self) -> None:
        """Have it be an older layout's: it decides until ours is attached, then it is removed."""
        aside = Pins(self.instance.name, f"{self.folder.name}{INCOMPLETE}")
        aside.remove()
        self.folder.rename(aside.folder)

    def names(self, kind: str) -> list[str]:
        """Sorted names below ``maps`` or ``links``; not what a crash left unfinished."""
        return [name for name in _names(self.folder / kind) if not name.endswith(UNFINISHED)]

    def open(self, path: Path) -> int:
        """Return a descriptor of the pinned object; the caller closes it."""
        return check(lib.aegis_get_pinned(os.fsencode(path)), str(path))

    def pin(self, fd: int, path: Path) -> None:
        """Pin, replacing what stood there in one step: never neither."""
        # bpffs keeps names with a dot to itself.
        fresh = path.with_name(path.name + UNFINISHED)
        fresh.unlink(missing_ok=True)
        check(lib.aegis_pin(fd, os.fsencode(fresh)), f"pinning {path}")
        fresh.rename(path)

    def others(self) -> list["Pins"]:
        """The same instance's pins of other ABIs."""
        return [pins for pins in all_pins(self.instance.name) if pins.folder != self.folder]

    def remove(self) -> int:
        """Detach every link and remove every pin; return how many. From any state."""
        count = 0
        for name in _names(self.folder / "links"):
            self._detach(self.link_path(name))
            count += 1
        count += len(_names(self.folder / "maps"))
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        for folder in (self.instance, PINS):
            with contextlib.suppress(OSError):  # other ABIs or instances live there
                folder.rmdir()
        return count

    def detach(self) -> None:
        """Detach every link; the maps stay pinned. Nobody may adopt it any more."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / COMPLETE).rmdir()
        for name in _names(self.folder / "links"):
            self.remove_link(name)

    def remove_link(self, name: str) -> None:
        """Detach one link, if it is there, and remove its pin."""
        self._detach(self.link_path(name))
        self.link_path(name).unlink(missing_ok=True)

    def _detach(self, path: Path) -> None:
        """Detach even if an agent holds the link; tracing links only know closing."""
        fd = lib.aegis_get_pinned(os.fsencode(path))
        if fd >= 0:
            lib.aegis_link_detach(fd)
            os.close(fd)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def instances() -> list[str]:
    """Names of all instances that have pins."""
    return _names(PINS)


def all_pins(instance: str) -> list[Pins]:
    """Its pins, of whatever ABI."""
    return [Pins(instance, name) for name in _names(PINS / instance)]
