# SPDX-License-Identifier: Apache-2.0
"""A whole Debian 13, with systemd as PID 1 and our package installed, as a disk image.

Made from this machine's own archive, in folders; neither a mount nor a loop device is
needed. What takes minutes is kept under STATE; remove that to begin anew.
"""

import hashlib
import lzma
import os
import shutil
import stat
import subprocess
from pathlib import Path

from vmtests.fetch import KEYRING, STATE, Image, archive, image
from vmtests.kernels import KERNELS

CHECKOUT = Path(__file__).resolve().parent.parent
HOME = STATE / "system"
INSIDE = Path(__file__).resolve().parent / "system"

SUITE = "trixie"
GUEST = (
    "systemd-sysv", "udev", "dbus", "iproute2", "kmod", "procps", "nftables", "logrotate",
    "openssh-server", "python3", "python3-pydantic", "python3-tomli", "python3-rich",
    "python3-cffi-backend", "libbpf1",
)  # fmt: skip
BUILDER = (
    "build-essential", "bpftool", "clang", "debhelper", "dh-python", "libbpf-dev",
    "pybuild-plugin-pyproject", "python3-cffi", "python3-dev", "python3-hatchling",
)  # fmt: skip
_NEEDED_MODULES = ("virtio_blk", "ext4")  # to find the disk; udev gets the others from it
_DISK = "3G"


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    finished = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        command = " ".join(map(str, argv))
        tail = (finished.stdout + finished.stderr)[-3000:]
        raise RuntimeError(f"{command}: exit code {finished.returncode}\n{tail}")
    return finished.stdout


def kernel() -> Image:
    (ours,) = (kernel for kernel in KERNELS if kernel.suite == SUITE)
    return image(ours)


def _bootstrap(name: str, packages: tuple[str, ...]) -> Path:
    """A tree with *packages*, made once.

    In two steps: debootstrap does not know packages that stand for others.
    """
    tree = HOME / name
    if tree.exists():
        return tree
    partial = tree.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    run("debootstrap", "--variant=minbase", f"--keyring={KEYRING}", SUITE, partial, archive())
    apt = ("apt-get", "-qq", "-y", "-o", "APT::Sandbox::User=root", "--no-install-recommends")
    run("chroot", partial, "env", "DEBIAN_FRONTEND=noninteractive", *apt, "install", *packages)
    run("chroot", partial, "apt-get", "clean")
    partial.rename(tree)
    return tree


def package() -> Path:
    """The .deb of this checkout's files, built on trixie; built again when one changed."""
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=CHECKOUT)
    files = sorted(name for name in names.split("\0") if name and (CHECKOUT / name).is_file())
    files = [name for name in files if not name.startswith(("tests/", "vmtests/", "bench/"))]
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode() + b"\0" + (CHECKOUT / name).read_bytes())
    deb = HOME / f"aegis-{digest.hexdigest()[:16]}.deb"
    if deb.exists():
        return deb
    builder = _bootstrap("builder", BUILDER)
    place = builder / "build"
    shutil.rmtree(place, ignore_errors=True)
    for name in files:
        target = place / "aegis" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target, follow_symlinks=False)
    run("chroot", builder, "sh", "-c", "cd /build/aegis && dpkg-buildpackage -b -us -uc")
    (built,) = place.glob("aegis_*.deb")
    shutil.copy(built, deb)
    return deb


def disk(path: Path) -> None:
    """Make at *path* the disk of a host that was just installed and never booted."""
    deb, found = package(), kernel()
    tree = path.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    run("cp", "-a", _bootstrap("guest", GUEST), tree)
    modules = tree / "usr/lib/modules"
    modules.mkdir(parents=True, exist_ok=True)
    run("cp", "-a", found.modules, modules)
    shutil.copytree(INSIDE, tree, dirs_exist_ok=True)
    shutil.copy(deb, tree / "root/aegis.deb")
    shutil.copytree(CHECKOUT / "etc/scripts", tree / "root/scripts")
    # It brings its own conffile: ours is laid over it afterwards.
    policy = (tree / "etc/aegis.toml").read_bytes()
    (tree / "etc/aegis.toml").unlink()
    run("chroot", tree, "dpkg", "--install", "/root/aegis.deb")
    (tree / "etc/aegis.toml").write_bytes(policy)
    shutil.copy(tree / "usr/bin/bash", tree / "usr/local/bin/prober")
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/hostname").write_text("guest\n")
    for unit in ("systemd-networkd", "probe", "report", "ssh"):
        run("chroot", tree, "systemctl", "enable", "--quiet", unit)
    path.unlink(missing_ok=True)
    run("mkfs.ext4", "-q", "-O", "^has_journal", "-d", tree, path, _DISK)
    shutil.rmtree(tree)


def initramfs(path: Path) -> None:
    """Find the disk and hand over to it; nothing else."""
    found = kernel()
    base = found.modules.parents[3]
    files: dict[str, tuple[int, bytes]] = {}
    for name in ("bin", "dev", "proc", "root", "lib"):
        files[name] = (stat.S_IFDIR | 0o755, b"")
    files["bin/busybox"] = (stat.S_IFREG | 0o755, Path("/bin/busybox").read_bytes())
    loads = []
    for module in _NEEDED_MODULES:
        listed = run("modprobe", "-d", base, "-S", found.modules.name, "--show-depends", module)
        for line in listed.splitlines():
            if line.startswith("insmod"):
                source = Path(line.split()[1])
                content = source.read_bytes()
                content = lzma.decompress(content) if source.suffix == ".xz" else content
                files[f"lib/{source.stem}"] = (stat.S_IFREG | 0o644, content)
                loads.append(f"$b insmod /lib/{source.stem}")
    script = (
        "#!/bin/busybox sh\nb=/bin/busybox\n"
        "$b mount -t devtmpfs none /dev\n" + "\n".join(dict.fromkeys(loads)) + "\n"
        "while ! [ -b /dev/vda ]; do $b usleep 20000; done\n"
        "$b mount -t ext4 /dev/vda /root\nexec $b switch_root /root /sbin/init\n"
    )
    files["init"] = (stat.S_IFREG | 0o755, script.encode())
    path.write_bytes(_cpio(files))


def _cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """The "newc" archive the kernel unpacks."""
    out = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields)
        out += os.fsencode(name) + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)
