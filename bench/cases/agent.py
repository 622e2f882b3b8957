# SPDX-License-Identifier: Apache-2.0
"""The agent itself: start, reload, memory, and doing nothing."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from aegis.bpf.cgroup import instance_name
from aegis.bpf.object import MAPS, UNKEYED_MAPS
from aegis.bpf.pins import all_pins
from bench.policies import Shape
from bench.result import Finding, at_most, row
from bench.world import World, memlock
from tests.kernel.agent import Agent, aegis

NAME = "agent"

_ROOT = Path(__file__).resolve().parents[2]
_FULL = Shape(rules=4096, entries_each=16)
_MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(world: World) -> Iterator[Finding]:
    yield from _start(world)
    yield from _idle(world)
    yield from _large(world)


def _start(world: World) -> Iterator[Finding]:
    seconds = []
    with world.places("aegis") as places:
        folder = world.workshop.new_folder()
        policy = folder / "aegis.toml"
        policy.write_bytes((_ROOT / "etc" / "aegis.toml").read_bytes())
        for _ in range(world.size.of(7, 1)):
            agent = Agent(policy, places["aegis"].cgroup.path, folder)
            begun = time.monotonic()
            agent.start()
            seconds.append(time.monotonic() - begun)
            agent.close()
    yield row(
        "start of the command to enforcing, example policy",
        seconds, unit="s", goal=at_most(0.4), note="nothing loaded before; seen to 0.02 s",
    )  # fmt: skip


def _idle(world: World) -> Iterator[Finding]:
    span = world.size.of(25, 1)
    with world.places("aegis") as places:
        agent = places["aegis"].govern(Shape())
        time.sleep(world.size.of(5, 0))
        before, begun = _spent(agent.pid), time.monotonic()
        time.sleep(span)
        after, took = _spent(agent.pid), time.monotonic() - begun
        pss = [_pss(process) for process in _family(agent.pid)]
    yield row(
        "idle: of a core", [(after[0] - before[0]) / _TICKS / took * 100],
        unit="%", goal=at_most(0.5),
    )  # fmt: skip
    yield row("idle: wake-ups", [(after[1] - before[1]) / took], unit="/s", goal=at_most(2))
    yield row(
        "agent's memory, 16 rules", [pss[0] / 1024], unit="MiB", goal=at_most(45),
        note="PSS; published of others: picosnitch 46 MB, OpenSnitch 68 MB",
    )  # fmt: skip
    yield row(
        "beside it, what starts its brokers where systemd does not",
        [sum(pss[1:]) / 1024], unit="MiB",
    )  # fmt: skip


def _large(world: World) -> Iterator[Finding]:
    """With the largest policy; every reload replaces every entry."""
    shape = Shape(rules=64, entries_each=16) if world.size.smoke else _FULL
    seconds = []
    with world.places("aegis") as places:
        agent = places["aegis"].govern(shape)
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
    """In /proc: the agent, what starts its brokers, and those."""
    yield Path("/proc", str(pid))
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _spent(pid: int) -> tuple[int, int]:
    """Ticks of the processor, and how often a thread had been waiting."""
    ticks = waits = 0
    for process in _family(pid):
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for status in process.glob("task/*/status"):
            found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)
            waits += int(found[1]) if found else 0
    return ticks, waits


def _pss(process: Path) -> int:
    found = re.search(r"^Pss:\s+(\d+)", (process / "smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1])


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
