# SPDX-License-Identifier: Apache-2.0
"""How large a policy may be, and what the largest costs: ``python -m tests.size``, as root.

4,096 programs with 65,536 entries, every entry another prefix with ports of its
own, against the real kernel. Seconds of the clock and of the processor: on a
busy machine only the second says anything.
"""

import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aegis.bpf.object import MAPS, UNKEYED_MAPS, BpfObject
from aegis.config.limits import APPS, ENTRIES
from aegis.config.load import load_policy
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy, Resolution
from aegis.policy.tables import Tables
from tests.kernel.agent import Agent, aegis
from tests.kernel.cgroup import ScratchCgroup

EACH = ENTRIES // APPS
FILES = 4
MIB = 1 << 20


def write_full_policy(folder: Path, version: int = 0) -> Path:
    """Write a policy that fills every limit; of another *version* no entry is the same."""
    drop_ins = folder / "aegis.d"
    drop_ins.mkdir(exist_ok=True)
    for part in range(FILES):
        rules = "".join(_rule(number, version) for number in range(part, APPS, FILES))
        (drop_ins / f"{part}.toml").write_text(rules)
    main = folder / "aegis.toml"
    main.write_text(f'[global]\ninclude_dirs = ["{drop_ins}"]\n')
    return main


def _rule(number: int, version: int) -> str:
    entries = ", ".join(
        f'"[2001:db8:{number:x}:{place:x}::/64]:{place + 1 + version}-{place + 9}/tcp"'
        for place in range(EACH)
    )
    return f'[[app]]\npath = "/nonexistent/p{number}"\nremotes = [{entries}]\n'


def read(main: Path) -> Policy:
    return load_policy(main, check_trust=False).policy


def tables_of(main: Path) -> Tables:
    return compile_policy(read(main), Resolution())


def map_bytes(loaded: BpfObject) -> dict[str, int]:
    """What the kernel says each map of ours holds."""
    return {name: _memlock(loaded.map_fd(name)) for name in (*MAPS, *UNKEYED_MAPS)}


def _memlock(fd: int) -> int:
    found = re.search(r"^memlock:\s+(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.M)
    assert found, "this kernel does not say how large a map is"
    return int(found[1])


@dataclass
class Cost:
    """Seconds by the clock, and of the processor."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed() -> Iterator[Cost]:
    cost = Cost()
    wall, cpu = time.monotonic(), _cpu()
    yield cost
    cost.wall, cost.cpu = time.monotonic() - wall, _cpu() - cpu


def _cpu() -> float:
    """Ours and that of the commands we waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(folder: Path) -> Iterator[str]:
    """Yield a line for each figure."""
    main = write_full_policy(folder)
    with timed() as cost:
        command = [sys.executable, "-m", "aegis", "check", "-c", str(main)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"{APPS} rules" in finished.stdout, finished.stdout[-500:]
    yield _seconds("check (a process of its own)", cost, 2)
    with timed() as cost:
        policy = read(main)
    yield _seconds("  of which reading", cost, None)
    with timed() as cost:
        compile_policy(policy, Resolution())
    yield _seconds("  compile", cost, None)
    with timed() as cost:
        loaded = BpfObject()
    yield _seconds("  load and verify the programs", cost, None)
    try:
        yield from _measure_kernel(main, folder, loaded)
    finally:
        loaded.close()
    with ScratchCgroup() as cgroup:
        yield from _measure_agent(main, folder, cgroup.path)


def _measure_agent(main: Path, folder: Path, cgroup: Path) -> Iterator[str]:
    """As an administrator would: a running agent and the command ``aegis reload``."""
    agent = Agent(main, cgroup, folder)
    with timed() as cost:
        agent.start("--unload-on-exit")
    yield _seconds("aegis run, until ready", cost, None)
    try:
        for version in (2, 3, 4):
            write_full_policy(folder, version)
            time.sleep(1)  # nobody reloads at once; the old half is deleted meanwhile
            with timed() as cost:
                finished = aegis("reload", cgroup=cgroup)
            assert f"{APPS} rules" in finished.stdout, finished.stdout + finished.stderr
            yield f"{'aegis reload, every entry changed':<36}{cost.wall:>8.2f} s   (aim: 1)"
    finally:
        agent.stop()


def _measure_kernel(main: Path, folder: Path, loaded: BpfObject) -> Iterator[str]:
    empty = sum(map_bytes(loaded).values())
    with timed() as cost:
        loaded.apply(tables_of(main))
    yield _seconds("cold load of the policy", cost, 2)
    write_full_policy(folder, version=1)
    with timed() as cost:
        loaded.apply(tables_of(main))
    yield _seconds("reload, every entry changed", cost, 1)
    tables = tables_of(main)
    with timed() as cost:
        loaded.apply(tables)
    yield _seconds("  of which fill, verify, flip", cost, None)
    with timed() as cost:
        loaded.retire()
    yield _seconds("  afterwards: deleting the old half", cost, None)
    full = map_bytes(loaded)
    yield f"{'maps, no policy':<36}{empty / MIB:>8.1f} MiB"
    yield f"{'maps, this policy':<36}{sum(full.values()) / MIB:>8.1f} MiB   (aim: 32)"
    for name, size in sorted(full.items(), key=lambda pair: -pair[1])[:6]:
        yield f"{'  ' + name:<36}{size / MIB:>8.1f} MiB"


def _seconds(what: str, cost: Cost, aim: int | None) -> str:
    told = f"   (aim: {aim})" if aim else ""
    return f"{what:<36}{cost.wall:>8.2f} s {cost.cpu:>8.2f} s CPU{told}"


def run() -> None:
    print(f"{APPS:,} rules, {ENTRIES:,} entries")
    # Trusted, so that `aegis check` reads it as the agent would.
    with tempfile.TemporaryDirectory(prefix="aegis-size-", dir="/run") as name:
        Path(name).chmod(0o755)
        for line in measure(Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    run()
