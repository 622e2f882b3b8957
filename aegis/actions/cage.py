# SPDX-License-Identifier: Apache-2.0
"""A cgroup for each run of a hook script: whatever it forks, clears or detaches ends with it.

Made below our own cgroup, where systemd (``Delegate=``) or the administrator's
session allows it. A process that is root can still be moved elsewhere by itself,
as by ``systemd-run``: this tidies up after scripts, it does not jail root.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PREFIX = "aegis-hook-"
_POLL_S = 0.005

# Suspends what runs, or lets it go on; whether that could be done.
Freeze = Callable[[bool], bool]


class Cage:
    """One cgroup; *fd* is its directory's."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            path.rmdir()
            raise

    def kill(self) -> None:
        """Kill everything in it and below it, also what is being forked."""
        with suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    def freeze(self, frozen: bool, /) -> bool:
        """Suspend everything in it, or let it go on; it can be killed all the same."""
        try:
            (self.path / "cgroup.freeze").write_text("1" if frozen else "0")
        except OSError:
            return False
        return True

    def is_empty(self) -> bool:
        try:
            return "populated 0" in (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return True

    async def end(self, seconds: float) -> bool:
        """Kill all, and return once it is gone; False: it takes longer than *seconds*."""
        self.kill()
        end = time.monotonic() + seconds
        while not self.is_empty() and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)
        return self.remove()

    def remove(self) -> bool:
        """Remove what is empty; whether all of it was."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        return _remove(self.path)


class Cages:
    """Makes cages in *home*. *reason*: why there are none; "" if there are."""

    def __init__(self, home: Path | None) -> None:
        self.reason = "" if home is not None else "no cgroup2 of our own is in sight"
        self._home = home
        self._serial = itertools.count(1)
        if home is not None:
            _remove_left_behind(home)

    def make(self) -> Cage | None:
        """Return a new one; None, and *reason*, if it cannot be made."""
        if self._home is None:
            return None
        while True:
            try:
                cage = Cage(self._home / f"{_PREFIX}{os.getpid()}-{next(self._serial)}")
            except FileExistsError:
                continue  # of an earlier process of our number, with something in it
            except OSError as error:
                self.reason = f"{self._home}: {error.strerror}"
                return None
            self.reason = ""
            return cage

    def give_up(self, error: OSError) -> None:
        """Make no more: nothing can be put into them."""
        self.reason = f"{self._home}: nothing can be started in a cgroup: {error.strerror}"
        self._home = None


def own_cgroup(proc: Path = Path("/proc/self")) -> Path | None:
    """Return the directory of our cgroup; None: not to be seen from here."""
    mount = next(
        (
            line.split()[4]
            for line in (proc / "mountinfo").read_text().splitlines()
            if line.partition(" - ")[2].startswith("cgroup2 ") and line.split()[3] == "/"
        ),
        None,
    )
    for line in (proc / "cgroup").read_text().splitlines():
        if mount is not None and line.startswith("0::/"):
            path = Path(mount.encode().decode("unicode_escape"), line.removeprefix("0::/"))
            return path if ".." not in path.parts and path.is_dir() else None
    return None


def _remove_left_behind(home: Path) -> None:
    """End what scripts of a killed agent left: nobody else will."""
    with suppress(OSError):
        for path in home.glob(f"{_PREFIX}*-*"):
            pid = path.name.removeprefix(_PREFIX).partition("-")[0]
            if pid.isdecimal() and not Path("/proc", pid).exists():
                with suppress(OSError):
                    (path / "cgroup.kill").write_text("1")
                _remove(path)


def _remove(path: Path) -> bool:
    """Remove *path* with the cgroups a script made in it."""
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106 (as os.walk names it)
    return not path.exists()
