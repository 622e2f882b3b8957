# SPDX-License-Identifier: Apache-2.0
"""Scratch cgroups: made for one purpose, emptied and removed whatever happens."""

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path
from types import TracebackType

from tests.kernel.settings import PATIENCE

_PREFIX = "aegis-test-"
_serial = itertools.count()


def cgroup2_mount(mountinfo: str | None = None) -> Path | None:
    """Where cgroup2 is mounted; on a hybrid host that is not /sys/fs/cgroup."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            return Path(before.split(" ")[4])
    return None


class ScratchCgroup:
    """A cgroup of our own under the cgroup2 mount. ``with`` removes it again.

    Units are children named like systemd's, e.g. ``telegraf.service``.
    """

    def __init__(self) -> None:
        mount = cgroup2_mount()
        if mount is None:
            raise FileNotFoundError("no cgroup2 mount in /proc/self/mountinfo")
        self.path = mount / f"{_PREFIX}{os.getpid()}-{next(_serial)}"
        self.path.mkdir()

    @classmethod
    def left_behind(cls) -> "list[ScratchCgroup]":
        """Those of test runs that were killed before they could clean up."""
        mount = cgroup2_mount()
        found = []
        for path in mount.glob(f"{_PREFIX}*-*") if mount else ():
            pid = path.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path("/proc", pid).exists():
                scratch = cls.__new__(cls)
                scratch.path = path
                found.append(scratch)
        return found

    def unit(self, name: str) -> Path:
        """The child cgroup *name* (may hold slashes), made if it is not there."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def pids(self) -> list[int]:
        """Everything that runs in it or below it."""
        found: list[int] = []
        for file in self.path.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found += [int(line) for line in file.read_text().split()]
        return found

    def close(self) -> None:
        """Kill what still runs inside, then remove the directories."""
        deadline = time.monotonic() + PATIENCE
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        below = [path for path in self.path.rglob("*") if path.is_dir()]
        for path in [*sorted(below, reverse=True), self.path]:
            _remove(path, deadline)

    def __enter__(self) -> "ScratchCgroup":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _remove(path: Path, deadline: float) -> None:
    # A zombie not reaped yet keeps its cgroup busy for a moment.
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
