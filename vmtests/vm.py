# SPDX-License-Identifier: Apache-2.0
"""How to boot: one kernel, our root shared, the tests of this checkout run inside."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmtests.fetch import Image, image
from vmtests.kernels import Kernel

CHECKOUT = Path(__file__).resolve().parent.parent
VNG = Path(sys.executable).with_name("vng")

MEMORY = "2G"
# One thread for all processors: two with one each wait for each other (the same tests took 149 s
# of ours instead of 107), and a guest that sleeps (S3) oopses when it wakes, a bare kernel too.
# What is left out is emulated step by step: 5-level page tables at each miss of the TLB, "rep"
# byte by byte, the guards of user memory at each copy. With the two below: a quarter of the time.
PROCESSOR = "-accel tcg,thread=single -cpu max,la57=off,-erms,-smap,-smep"
# A queue's doorbell rings at once: else QEMU polls hundreds of descriptors for it.
DEVICES = "-global virtio-pci.ioeventfd=off"
# Detours around faulty processors, and pages cleared twice.
KERNEL_WORDS = "mitigations=off init_on_alloc=0"
# For one that hangs. The machine's own tests come first, and some machines take twice as long.
TIME_LIMIT = 2700.0
# Of its session among all (sched(7), autogroups): guests take what nobody else does.
NICE = 10

# One line: virtme-ng makes blanks of newlines. The checkout is mounted over itself because
# virtme-ng mounts over /tmp, /var/tmp and others, where it may lie. 9p without a page cache
# makes each start of Python take twice as long as with one; nobody writes there meanwhile.
_START = (
    'mkdir -p "$1" && mount -t 9p -o trans=virtio,version=9p2000.L,access=any,msize=524288,'
    'ro,cache=loose aegis.checkout "$1" && exec "$1/vmtests/guest-init" "$@"'
)

_running: list[subprocess.Popen[Any]] = []


@dataclass(frozen=True)
class Run:
    """What one guest did. Seconds of boot are the guest's own, the others are ours."""

    kernel: str
    release: str
    exit_code: int
    summary: str
    passed: int
    failed: int
    skipped: int
    boot_seconds: float
    test_seconds: float
    total_seconds: float
    output: str


def missing() -> str | None:
    """What this machine lacks to run the VM tests."""
    if os.geteuid() != 0:
        return "VM tests need root"
    if not VNG.exists():
        return "VM tests need virtme-ng in the virtual environment"
    tools = [tool for tool in ("qemu-system-x86_64", "udevadm", "depmod") if not shutil.which(tool)]
    return f"VM tests need {', '.join(tools)}" if tools else None


def run_pytest(kernel: Kernel, report: Path, *arguments: str) -> Run:
    """Boot *kernel*, run pytest with *arguments* in it; *report* keeps what it left."""
    report.mkdir(parents=True, exist_ok=True)
    # Not in the command: that is in the kernel's, which is cut after 2,048 bytes.
    (report / "arguments").write_text("".join(f"{argument}\n" for argument in arguments))
    guest = ["/bin/sh", "-c", _START, "start", str(CHECKOUT), sys.executable]
    command = _command(image(kernel), kernel.processors, report, guest)
    begun = time.monotonic()
    exit_code, output = _run(command)
    (report / "output").write_text(output)
    return _read(kernel, report, exit_code, output, time.monotonic() - begun)


def _share(number: int, tag: str, path: Path, *, writable: bool = False) -> str:
    backend = f"local,id=aegis{number},path={path},security_model=none,multidevs=remap"
    if not writable:
        backend += ",readonly=on"
    return f"-fsdev {backend} -device virtio-9p-pci,fsdev=aegis{number},mount_tag={tag}"


def _command(kernel: Image, processors: int, report: Path, guest: list[str]) -> list[str]:
    shares = (
        _share(0, "aegis.usr", Path("/usr")),
        _share(1, "aegis.checkout", CHECKOUT),
        _share(2, "aegis.report", report, writable=True),
        _share(3, "aegis.modules", kernel.modules),
    )
    return [
        str(VNG),
        f"--run={kernel.vmlinuz}",
        "--disable-kvm",
        "--disable-microvm",
        "--force-9p",
        "--user=root",
        f"--cpus={processors}",
        f"--memory={MEMORY}",
        "--cwd=/",
        f"--append={KERNEL_WORDS}",
        f"--qemu-opts={' '.join((PROCESSOR, DEVICES, *shares))}",
        "--",
        shlex.join(guest),
    ]


def _run(command: list[str]) -> tuple[int, str]:
    """The guest's exit code and all it printed; its whole process group ends with it."""
    # A pipe and not a file: QEMU opens what it is given again and truncates a file.
    process = subprocess.Popen(
        command,
        # vng calls virtme-run by name; both lie where our Python does.
        env={**os.environ, "PATH": f"{VNG.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with behind_all(process):
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += f"\nended after {TIME_LIMIT:.0f} s"
    return process.returncode, output


@contextlib.contextmanager
def behind_all(guest: "subprocess.Popen[Any]") -> Iterator[None]:
    """Meanwhile *guest*, which leads a session, only takes what nobody else does."""
    _running.append(guest)
    with contextlib.suppress(OSError):  # a kernel without autogroups
        Path(f"/proc/{guest.pid}/autogroup").write_text(f"{NICE}\n")
    try:
        yield
    finally:
        _running.remove(guest)


def stop_all() -> None:
    """End the guests that other threads still wait for."""
    for process in list(_running):
        os.killpg(process.pid, signal.SIGKILL)


def _read(kernel: Kernel, report: Path, exit_code: int, output: str, seconds: float) -> Run:
    """The run, from what the guest left in *report*; zeroes where it left nothing."""
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    test_seconds = 0.0
    junit = report / "junit.xml"
    if junit.exists():
        for suite in ET.parse(junit).getroot().iter("testsuite"):  # noqa: S314 our own pytest's
            counts = {name: counts[name] + int(suite.get(name, "0")) for name in counts}
            test_seconds += float(suite.get("time", "0"))
    failed = counts["failures"] + counts["errors"]
    return Run(
        kernel=kernel.name,
        release=_text(report / "release"),
        exit_code=exit_code,
        summary=output.strip().rpartition("\n")[2].strip("= "),
        passed=counts["tests"] - failed - counts["skipped"],
        failed=failed,
        skipped=counts["skipped"],
        boot_seconds=float(_text(report / "boot") or "0"),
        test_seconds=test_seconds,
        total_seconds=round(seconds, 1),
        output=output,
    )


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
