# SPDX-License-Identifier: Apache-2.0
"""The same TCP connect() under OpenSnitch, which asks a program of its own each time."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases.tcp_connect import WHAT, take_turns
from bench.interleave import interleave, ratios
from bench.policies import Shape
from bench.result import Finding, Unable, row
from bench.world import World
from tests.kernel.network import Network
from tests.pace import HUNG_S

NAME = "opensnitch"

_HERE = Path(__file__).resolve().parent.parent
PACKAGE = _HERE.parent / "build" / "bench" / "opensnitch"  # unpacked by ./dev bench


class _DidNotStart(Exception):
    """With what it said last."""


def measure(world: World) -> Iterator[Finding]:
    if not (PACKAGE / "usr/bin/opensnitchd").exists():
        yield Unable("OpenSnitch", "its package could not be had")
        return
    count, rounds = world.size.of(200, 20), world.size.of(30)
    with world.places("plain", "aegis", "opensnitch") as places:
        turns = take_turns(places, count, {})
        places["aegis"].govern(Shape())
        try:
            with _govern(places["opensnitch"].network) as network:
                asked = _asked(network)
                found = interleave(turns, rounds)
                assert _asked(network) - asked >= rounds * count
        except _DidNotStart as error:
            yield Unable("OpenSnitch", str(error))
            return
    version = subprocess.run(
        [PACKAGE / "usr/bin/opensnitchd", "-version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    asking = f"OpenSnitch {version}, everything allowed"
    for name, who, bar in (("opensnitch", asking, "OpenSnitch"), ("aegis", "Aegis", "")):
        yield row(
            f"{WHAT}, {who}: throughput",
            ratios(found, "plain", name), against="plain", bar=bar,
        )  # fmt: skip
        yield row(f"the same, {who}", found[name], unit="ns")
    yield row("the same, plain", found["plain"], unit="ns")


@contextmanager
def _govern(network: Network) -> Iterator[Network]:
    """Have OpenSnitch decide for *network*."""
    process = network.call(_start)
    try:
        end = time.monotonic() + HUNG_S
        while _asked(network) < 0:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                said = process.communicate()[0].splitlines()
                raise _DidNotStart(said[-1] if said else "it said nothing")
            time.sleep(0.1)
        yield network
    finally:
        process.kill()  # it takes seconds to stop; its rules go with the namespace
        process.communicate()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["unshare", "--mount", "sh", _HERE / "opensnitch.sh", PACKAGE],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _asked(network: Network) -> int:
    """How many packets of new connections it was asked about; -1: nobody asks it."""
    listed = network.call(
        subprocess.run, ["iptables", "-t", "mangle", "-nvxL", "OUTPUT"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [line.split()[0] for line in listed.stdout.splitlines() if "NFQUEUE" in line]
    return int(found[0]) if found else -1
