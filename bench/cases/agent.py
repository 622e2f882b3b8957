# SPDX-License-Identifier: Apache-2.0
"""The agent itself: start, reload, memory, and doing nothing."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from aegis.bpf.cgroup import instance_name
from aegis.bpf.object import MAPS, UNKEYED_MAPS
from aegis.bpf.pins import all_pins
from bench.policies import Shape
from bench.result import Finding, at_most, row
from bench.world import World, memlock
from tests.kernel.agent import aegis
from tests.soak.scene import Scene

NAME = "agent"

_ROOT = Path(__file__).resolve().parents[2]
_ALONE = _ROOT / "bench" / "alone.sh"
_FULL = Shape(rules=4096, entries_each=16)
_MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(world: World) -> Iterator[Finding]:
    yield from _start(world)
    yield from _idle(world)
    yield from _large(world)


def _start(world: World) -> Iterator[Finding]:
    """By a pipe that is read as it comes: the time is exact."""
    seconds = []
    with Scene((_ROOT / "etc" / "aegis.toml").read_text()) as scene:
        for _ in range(world.size.of(9, 1)):
            run = scene.run()
            seconds.append(run.wait())
            run.end(signal.SIGTERM)
            scene.unload()
    yield row(
        "start of the command to enforcing, example policy",
        seconds, unit="s", goal=at_most(0.4), note="nothing loaded before",
    )  # fmt: skip


def _idle(world: World) -> Iterator[Finding]:
    with world.places("aegis") as places:
        pid = places["aegis"].govern(Shape(), wrapper=_alone(world.workshop.new_folder())).pid
        time.sleep(world.size.of(5, 0))
        windows = [_window(pid, world.size.of(15, 1)) for _ in range(world.size.of(3, 1))]
        own, *others = (_pss(process) for process in _family(pid))
    yield row(
        "idle: of a core", [cpu * 100 for cpu, _ in windows], unit="%", goal=at_most(0.5),
        note="the agent, its brokers, and the children its proof takes every 10 s",
    )  # fmt: skip
    yield row("idle: wake-ups", [waits for _, waits in windows], unit="/s", goal=at_most(2))
    yield row(
        "agent's memory, 16 rules", [own / 1024], unit="MiB", goal=at_most(45),
        note="PSS, as if no other Python ran on the machine, but its own brokers; published of "
        "others: picosnitch 46 MB, OpenSnitch 68 MB",
    )  # fmt: skip
    yield row(
        "beside it, what starts its brokers where systemd does not",
        [sum(others) / 1024], unit="MiB",
    )  # fmt: skip


def _alone(folder: Path) -> list[str]:
    """For a process that shares no file's pages with us: see alone.sh."""
    mapped = re.findall(r"(/\S+)$", Path("/proc/self/maps").read_text(), re.M)
    files = sorted({path for path in mapped if Path(path).is_file()})
    return ["unshare", "--mount", "sh", str(_ALONE), str(folder / "alone"), *files, "--"]


def _window(pid: int, seconds: int) -> tuple[float, float]:
    """Of a core, and wake-ups a second."""
    before, begun = _spent(pid), time.monotonic()
    time.sleep(seconds)
    after, took = _spent(pid), time.monotonic() - begun
    return (after[0] - before[0]) / _TICKS / took, (after[1] - before[1]) / took


def _large(world: World) -> Iterator[Finding]:
    """With the largest policy; every reload replaces every entry."""
    shape = Shape(rules=64, entries_each=16) if world.size.smoke else _FULL
    seconds = []
    with world.places("aegis") as places:
        agent = places["aegis"].govern(shape, wrapper=_alone(world.workshop.new_folder()))
        text = agent.policy.read_text()
        for version in range(1, world.size.of(5, 1) + 1):
            agent.policy.write_text(_other(text, version))
            time.sleep(1)  # the old half is deleted meanwhile
            begun = time.monotonic()
            finished = aegis("reload", cgroup=places["aegis"].cgroup.path)
            seconds.append(time.monotonic() - begun)
            assert finished.returncode == 0, finished.stderr
        time.sleep(1)
        pss, kernel = _pss(Path("/proc", str(agent.pid))), _maps(places["aegis"].cgroup.path)
    entries = shape.rules * shape.entries_each
    yield row(
        f"`aegis reload`, {entries:,} entries, every one changed",
        seconds, unit="s", goal=at_most(1), note="the command from start to end",
    )  # fmt: skip
    yield row(f"agent's memory, {entries:,} entries, after reloads", [pss / 1024], unit="MiB")
    yield row(f"kernel's maps, {entries:,} entries", [kernel / _MIB], unit="MiB", goal=at_most(32))


def _other(text: str, version: int) -> str:
    """Each entry of the synthetic rules with another range of ports."""
    return re.sub(r"]:(\d+)-(\d+)/tcp", lambda m: f"]:{int(m[1]) + version}-{int(m[2]) + 9}/tcp",
                  text)  # fmt: skip


def _family(pid: int) -> Iterator[Path]:
    """In /proc: the agent, what starts its brokers, and those; a child may just have ended."""
    yield Path("/proc", str(pid))
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _text(children).split():
            yield from _family(int(child))


def _spent(pid: int) -> tuple[int, int]:
    """Ticks of the processor, and how often a thread had been waiting.

    Children that ended count with who waited for them.
    """
    agent, *others = (_spent_by(process) for process in _family(pid))
    assert agent is not None, "the agent ended"
    spent = [agent, *filter(None, others)]
    return sum(ticks for ticks, _ in spent), sum(waits for _, waits in spent)


def _spent_by(process: Path) -> tuple[int, int] | None:
    """None: it ended; a thread may just end, too."""
    stat = _text(process / "stat")
    statuses = "".join(map(_text, process.glob("task/*/status")))
    waits = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", statuses, re.M)
    if not stat or not waits:
        return None
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])), sum(map(int, waits))


def _text(path: Path) -> str:
    """Of what is in /proc as long as it runs; else nothing."""
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def _pss(process: Path) -> int:
    """KiB; 0: it ended."""
    found = re.search(r"^Pss:\s+(\d+)", _text(process / "smaps_rollup"), re.M)
    return int(found[1]) if found else 0


def _maps(cgroup: Path) -> int:
    total = 0
    for pins in all_pins(instance_name(cgroup)):
        for name in (*MAPS, *UNKEYED_MAPS):
            fd = pins.open(pins.map_path(name))
            try:
                total += memlock(fd)
            finally:
                os.close(fd)
    return total
