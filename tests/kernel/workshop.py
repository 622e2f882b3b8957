# SPDX-License-Identifier: Apache-2.0
"""A directory that passes the trust check, and the programs put into it."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "build" / "tests"  # compiled programs, by what they were made of

# What the tests call. All are in Debian; busybox comes from busybox-static.
TOOLS = ("gcc", "curl", "ncat", "busybox", "python3", "setpriv", "unshare", "ip")

_FLAGS = ("-Wall", "-Wextra", "-Werror", "-O2", "-pthread", "-static")
_BARE_32_BIT = (
    *("-m32", "-O2", "-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector"),
    *("-fno-pie", "-no-pie"),
)


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def _may_hold_programs(path: Path) -> bool:
    # Every directory above a policy must be root's and closed to others: /tmp is not.
    for directory in (path, *path.parents):
        status = directory.lstat()
        if status.st_uid != 0 or status.st_mode & 0o022:
            return False
    return not os.statvfs(path).f_flag & os.ST_NOEXEC


def make_directory() -> Path:
    """A new directory only root can write to, and from which programs may run.

    Those of test runs that were killed are removed.
    """
    for place in (Path("/run"), Path("/var/lib"), Path("/root"), Path("/")):
        if place.is_dir() and _may_hold_programs(place):
            for left in place.glob("aegis-test-*-*"):
                if not Path("/proc", left.name.split("-")[2]).exists():
                    shutil.rmtree(left)
            path = Path(tempfile.mkdtemp(prefix=f"aegis-test-{os.getpid()}-", dir=place))
            path.chmod(0o755)
            return path
    raise PermissionError("no directory on this host passes the trust check")


class Workshop:
    """Programs under test: the compiled prober under any name, real ones by copy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir(mode=0o755)
        self._serial = 0
        self._copied: dict[Path, Path] = {}
        self.prober = self.compile("prober", *sorted(HERE.glob("prober*.c")))
        self.listener = self.compile("listener", HERE / "listener.c")
        self.maker = self.compile("maker", HERE / "maker.c")
        self.client32 = self.compile("client32", HERE / "client32.c", flags=_BARE_32_BIT)

    def compile(self, name: str, *sources: Path, flags: Sequence[str] = _FLAGS) -> Path:
        """Compile, unless an earlier run did: in a guest that takes a minute."""
        target = self.bin / name
        parts = (" ".join(flags).encode(), *(path.read_bytes() for path in sources))
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
        kept = KEPT / f"{name}-{digest[:16]}"
        if kept.exists():
            shutil.copyfile(kept, target)
            target.chmod(0o755)
            return target
        subprocess.run(["gcc", *flags, "-o", target, *sources], check=True)
        with contextlib.suppress(OSError):  # a guest's checkout is read-only
            KEPT.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, KEPT / f".{name}-{os.getpid()}")
            (KEPT / f".{name}-{os.getpid()}").rename(kept)
        return target

    def install(self, name: str, source: Path | str | None = None, owner: int = 0) -> Path:
        """A copy of *source* (the prober) called *name*, made once; one program a name."""
        target = self.bin / name if owner == 0 else self.folder(f"of-{owner}") / name
        copied = Path(source or self.prober).resolve()
        if self._copied.setdefault(target, copied) != copied:
            raise ValueError(f"{name} is a copy of {self._copied[target]} already")
        if not target.exists():
            shutil.copyfile(copied, target)
            target.chmod(0o755)
            os.chown(target, owner, owner)
        return target

    def script(self, name: str, text: str) -> Path:
        """An executable script only root can change."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def folder(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(mode=0o755, exist_ok=True)
        return path

    def new_folder(self) -> Path:
        """A folder nobody used before."""
        self._serial += 1
        return self.folder(f"work-{self._serial}")

    def close(self) -> None:
        shutil.rmtree(self.directory)
