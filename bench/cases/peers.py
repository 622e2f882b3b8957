# SPDX-License-Identifier: Apache-2.0
"""What others do with a connect(), where they can be run at all."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.cases.udp_connect import turn
from bench.interleave import ratios
from bench.policies import OPEN
from bench.result import Finding, Unable, row
from bench.world import World

NAME = "peers"

_COUNTING = "tracepoint:syscalls:sys_enter_connect { @[comm] = count(); }"


def measure(world: World) -> Iterator[Finding]:
    yield from _bpftrace(world)
    yield _picosnitch()


def _picosnitch() -> Unable:
    """Its 1.0.3 attaches to execve() by a kretprobe and has no other way."""
    symbols = Path("/proc/kallsyms").read_text()
    if " register_kretprobe" in symbols:
        return Unable("picosnitch", "not in Debian")
    return Unable("picosnitch", "it hooks execve() by a kretprobe, which this kernel has none of")


def _bpftrace(world: World) -> Iterator[Finding]:
    """Counting, and nothing else: the least that watching with it costs."""
    if shutil.which("bpftrace") is None:
        yield Unable("bpftrace", "not installed")
        return
    found: dict[str, list[float]] = {"bpftrace": [], "plain": []}
    with world.places("plain") as places:
        once = turn(places["plain"], OPEN, world.size.of(20000, 100))
        for _ in range(world.size.of(6, 1)):
            found["plain"].append(once())
            tracer = subprocess.Popen(
                ["bpftrace", "-e", _COUNTING],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            assert tracer.stdout is not None
            said = ""
            for line in tracer.stdout:
                said += line
                if "Attaching" in line:
                    break
            if tracer.poll() is not None or "ERROR" in said:
                tracer.wait()
                yield Unable("bpftrace", _last_error(said))
                return
            once()
            found["bpftrace"].append(once())
            tracer.terminate()
            tracer.communicate()
    yield row("UDP connect() counted by bpftrace", ratios(found, "bpftrace", "plain"),
              against="plain")  # fmt: skip


def _last_error(said: str) -> str:
    errors = [line for line in said.splitlines() if "ERROR" in line]
    return errors[-1] if errors else "it ended at once"
