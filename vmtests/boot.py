# SPDX-License-Identifier: Apache-2.0
"""``./dev soak boot [--boots 20]``: one host under systemd, booted again and again.

Rules must be in force before its first network interface is up, whatever became of
its policy's files, and it must be reachable each time. With ``--tour`` one boot, and
what an administrator does on that host, judged by ``vmtests.judge``. Minutes; root. The tests
boot it twice (``test_boot``).
"""

import argparse
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmtests import trixie
from vmtests.fetch import STATE
from vmtests.judge import judge
from vmtests.qmp import Waker
from vmtests.vm import DEVICES, KERNEL_WORDS, MEMORY, PROCESSOR, behind_all

REPORTS = STATE / "report"
TIME_LIMIT = 1200.0  # a machine that does other things besides takes five minutes
TOUR_LIMIT = 1500.0
CALL_S, CALLS = 5.0, 6  # how often sshd is called, and how many calls wait for an answer
SLEEP_S, NAP_S = 60, 20  # a guest that suspends itself is woken after so long
# What each boot finds, in turn; the first is that of a host just installed.
KINDS = ("none", "good", "broken", "damaged", "off", "good", "broken-and-none", "off-file")
SHORT = ("none", "broken")


@dataclass(frozen=True)
class Boot:
    """What the guest told, and whether somebody could come in meanwhile."""

    kind: str
    told: dict[str, Any]
    banner: str
    seconds: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def qemu(folder: Path, words: str, port: int) -> list[str]:
    # The guest reaches nobody (restrict); we reach its sshd.
    network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    return [
        "qemu-system-x86_64", *PROCESSOR.split(), *DEVICES.split(), "-smp", "2", "-m", MEMORY,
        "-nodefaults", "-display", "none", "-no-reboot",
        "-kernel", str(trixie.kernel().vmlinuz), "-initrd", str(folder / "initramfs"),
        "-append", f"root=/dev/vda console=ttyS0 {KERNEL_WORDS} panic=-1 quiet {words}",
        "-drive", f"file={folder / 'disk'},format=raw,if=virtio,cache=unsafe",
        "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
        "-device", "virtio-rng-pci", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
        "-serial", f"file:{folder / 'console'}", "-serial", f"file:{folder / 'told'}",
    ]  # fmt: skip


class Caller:
    """Calls an sshd again and again. *banner*: what it said to the first who got an answer.

    Who calls before there is a network waits for long: so nobody waits for one call to end. But
    an emulated sshd is forked, and executed, before it says anything: too many, and none is
    answered.
    """

    def __init__(self, port: int) -> None:
        self.banner = ""
        self._port = port
        self._due = 0.0
        self._calls: list[socket.socket] = []

    def look(self) -> None:
        if self.banner:
            return
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + CALL_S
            with suppress(OSError):  # the guest is not there yet, or any more
                self._calls.append(socket.create_connection(("127.0.0.1", self._port), 2))
        for call in select.select(self._calls, [], [], 0)[0]:
            with suppress(OSError):
                self.banner = self.banner or call.recv(64).decode(errors="replace").strip()
            self._drop(call)
        while len(self._calls) > CALLS:
            self._drop(self._calls[0])

    def close(self) -> None:
        for call in list(self._calls):
            self._drop(call)

    def _drop(self, call: socket.socket) -> None:
        self._calls.remove(call)
        call.close()


def boot(
    folder: Path, kind: str, words: str, limit: float = TIME_LIMIT, sleep_s: int = SLEEP_S
) -> Boot:
    for name in ("told", "console"):
        (folder / name).write_text("")
    port, begun = free_port(), time.monotonic()
    waker = Waker(folder / "qmp", sleep_s)
    words += f" aegis-test.sleep={sleep_s}"  # what is shorter ends meanwhile
    process = subprocess.Popen(
        qemu(folder, words, port), stdin=subprocess.DEVNULL, start_new_session=True
    )
    with behind_all(process), closing(Caller(port)) as caller:
        try:
            while process.poll() is None and time.monotonic() - begun < limit:
                caller.look()
                with suppress(OSError):  # it has yet to listen, or is gone
                    waker.look()
                time.sleep(1)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
    lines = (folder / "told").read_text().splitlines() or [""]
    told = {"error": f"the guest told nothing more than: {lines[-1]}"}
    if lines[-1].startswith("{"):
        told = json.loads(lines[-1]) | {"naps": waker.naps}
    return Boot(kind, told, caller.banner, time.monotonic() - begun)


def words_for(kind: str, following: str) -> str:
    off = "aegis=off " if kind == "off" else ""
    return f"{off}aegis-test.next={following}"


def problems(boot: Boot) -> list[str]:
    """What is not as it must be after a boot of this kind; empty: all is well."""
    told = boot.told
    if "error" in told or "late" not in told:
        return [str(told.get("error", "the guest told nothing"))]
    governed = boot.kind not in ("off", "off-file", "broken-and-none")
    early, late = told["early"], told["late"]
    wrong = []
    if not boot.banner.startswith("SSH-"):
        wrong.append("its sshd was not reached")
    others_up = [name for name, up in early["up"].items() if up and name != "lo"]
    if others_up:
        wrong.append(f"{others_up} up before the early probe")
    for when, got in (("early", early["got"]), ("late", late["got"])):
        for name in ("remote", "local"):
            if (got[name] == "denied") is not governed:
                wrong.append(f"{when}: {name} {got[name]}")
        if got["allowed"] == "denied":
            wrong.append(f"{when}: what is allowed was denied")
    if governed and not 0 < told["loaded_at"] < min(told["networkd_at"], told["link_up_at"]):
        wrong.append("the rules came after the network")
    if not told["link_up_at"]:
        wrong.append("no link came up")
    return wrong + _agent_problems(boot)


def _agent_problems(boot: Boot) -> list[str]:
    told, wrong = boot.told, []
    said = "\n".join([*told["load_said"], *told["agent_said"]])
    state, status = told["agent"]["ActiveState"], told["status"]
    wanted = {
        "none": ("active", "no policy was in force yet"),
        "good": ("active", "from /var/lib/aegis/last-good"),
        "broken": ("activating", "stays in force: generation 1"),
        "damaged": ("active", "damaged"),
        "broken-and-none": ("activating", "no policy was in force yet"),
        "off": ("inactive", ""),
        "off-file": ("inactive", ""),
    }
    expected, words = wanted[boot.kind]
    if state != expected:
        wrong.append(f"the agent is {state}, not {expected}")
    if words not in said:
        wrong.append(f"nobody said {words!r}")
    if "Traceback" in said:
        wrong.append("a traceback")
    if expected == "active" and told["status_code"] != 0:
        wrong.append(f"status: {status.get('problems') if isinstance(status, dict) else status}")
    return wrong


def line(number: int, boot: Boot, wrong: list[str]) -> str:
    told = boot.told
    state = told.get("status")
    generation = state.get("generation", 0) if isinstance(state, dict) else 0
    moments = {"rules": "loaded_at", "networkd": "networkd_at", "link": "link_up_at"}
    times = " ".join(f"{name} {told.get(key, 0):.2f}" for name, key in moments.items())
    what = f"{number:2} {boot.kind:16} {times} generation {generation} {boot.seconds:.0f} s"
    return f"{what}: {'; '.join(wrong) or 'ok'}"


def tour(folder: Path, name: str) -> int:
    prepare(folder)
    done = boot(folder, "none", f"aegis-test.do={name}", TOUR_LIMIT)
    print(json.dumps(done.told, indent=1))
    steps, wrong = judge(name, done.told)
    for line in wrong:
        print(line)
    print(f"{'FAILED' if wrong else 'ok'} {name}: {steps} steps, {len(wrong)} wrong; "
          f"{done.seconds:.0f} s")  # fmt: skip
    return 1 if wrong else 0


def prepare(folder: Path) -> None:
    """The disk of a host just installed, and what finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    trixie.disk(folder / "disk")
    trixie.initramfs(folder / "initramfs")


def boots(
    folder: Path, kinds: Sequence[str], *, nap: bool = False
) -> Iterator[tuple[Boot, list[str]]]:
    """One host, booted once for each; and what was wrong. *nap*: it sleeps in the first."""
    prepare(folder)
    for kind, following in zip(kinds, (*kinds[1:], kinds[0]), strict=True):
        words = words_for(kind, following) + (" aegis-test.do=nap" if nap else "")
        done = boot(folder, kind, words, sleep_s=NAP_S)
        yield done, problems(done)
        nap = False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vmtests.boot", description=__doc__)
    parser.add_argument("--boots", type=int, default=20)
    parser.add_argument("--tour", help="one boot with this tour instead, see vmtests/system")
    args = parser.parse_args()
    if args.tour:
        return tour(REPORTS / args.tour, args.tour)
    folder = REPORTS / "boot"
    failed, kinds = 0, [KINDS[number % len(KINDS)] for number in range(args.boots)]
    for number, (done, wrong) in enumerate(boots(folder, kinds), 1):
        failed += bool(wrong)
        shutil.copy(folder / "console", folder / f"console-{number}")
        (folder / f"told-{number}.json").write_text(json.dumps(done.told, indent=1))
        print(line(number, done, wrong), flush=True)
    print(f"{args.boots - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
