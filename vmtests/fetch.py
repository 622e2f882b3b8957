# SPDX-License-Identifier: Apache-2.0
"""Kernels as Debian packages, unpacked in a directory of ours; nothing is installed."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmtests.kernels import PACKAGE, Kernel

STATE = Path(os.environ.get("AEGIS_VM_STATE", "/var/cache/aegis-vm"))
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# The packages with files of a kernel in them, among all that PACKAGE depends on.
_KERNEL_FILES = re.compile(r"linux-(image|binary|modules)-\d\S*")
# One line of `apt-get update --print-uris` is 'URI' FILENAME SIZE.
_URI = re.compile(r"'(?P<base>[^']+)/dists/(?P<suite>[^/']+)/InRelease'")


@dataclass(frozen=True)
class Image:
    """An unpacked kernel."""

    vmlinuz: Path
    modules: Path


def image(kernel: Kernel) -> Image:
    """The unpacked *kernel*, fetched once; remove STATE to fetch newer ones."""
    home = STATE / kernel.name
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "lock"):
        root = home / "root"
        if not root.exists():
            _unpack(_download(home, kernel), root)
    return _find(root)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    finished = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        command = " ".join(map(str, argv))
        raise RuntimeError(f"{command}: exit code {finished.returncode}\n{finished.stderr}")
    return finished.stdout


def archive() -> str:
    """This machine's own Debian archive: where apt gets the release it runs from."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    codename = release["VERSION_CODENAME"].strip('"')
    for match in _URI.finditer(_run("apt-get", "update", "--print-uris")):
        if match["suite"] == codename:
            return match["base"]
    raise RuntimeError(f"apt's sources name no Debian archive with the suite {codename}")


def _download(home: Path, kernel: Kernel) -> list[Path]:
    """The .deb files of *kernel*, through package lists of its own."""
    lists, debs = home / "lists", home / "debs"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir()
    sources = home / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {archive()} {kernel.suite} main\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": lists,
        "Dir::State::status": "/dev/null",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "none",
        # The directories are root's: apt's own user could not write to them.
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _run("apt-get", *options, "update", "--error-on=any")
    tree = _run("apt-cache", *options, "depends", "--recurse", "--important", PACKAGE)
    packages = sorted(set(filter(_KERNEL_FILES.fullmatch, tree.split())))
    _run("apt-get", *options, "download", *packages, cwd=debs)
    return sorted(debs.glob("*.deb"))


def _unpack(debs: list[Path], root: Path) -> None:
    """All of *debs* in *root*, which appears only once it is complete."""
    partial = root.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    # As on an installed system: packages before Debian 13 have lib/, later ones usr/lib/.
    (partial / "usr/lib").mkdir(parents=True)
    (partial / "lib").symlink_to("usr/lib")
    for deb in debs:
        contents = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
        # --keep-directory-symlink: a lib/ in the package must not replace our link.
        unpack = ["tar", "-x", "--keep-directory-symlink", "-C", str(partial)]
        subprocess.run(unpack, stdin=contents.stdout, check=True)
        if contents.wait() != 0:
            raise RuntimeError(f"{deb}: cannot be unpacked")
        deb.unlink()
    _run("depmod", "--basedir", partial, _find(partial).modules.name)
    partial.rename(root)


def _find(root: Path) -> Image:
    (modules,) = (root / "usr/lib/modules").iterdir()
    # Since 6.19 Debian keeps the image beside its modules and not in /boot.
    (vmlinuz,) = (*root.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz"))
    return Image(vmlinuz, modules)
