# SPDX-License-Identifier: Apache-2.0
"""What the agent bears, measured: ``python -m tests.load [events|memory|idle|neighbour]``, as root.

Seconds of this machine, which has to be quiet; nothing of it is run by CI. Whoever makes
the load has a processor to itself, as long as there are two. Each aim is said to be met or MISSED;
exit code 1: one was missed.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aegis.actions.processes import children
from tests.kernel.agent import Agent
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import Network
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop, make_directory

MIB = 1 << 20
FLOWS = 10_000  # of the neighbour
LOUD = 1_000_000  # a second: what it is beside
# What is aimed at.
EVENTS_A_SECOND, MEMORY, IDLE_SHARE, TOLD_S = 100_000, 64 * MIB, 0.005, 5.0
NOISE = (
    ("the same 100", "load-distinct", 100),
    ("ever other ones", "load-distinct", 1_000_000),
    ("the same 100, detent = 0", "load-reported", 100),
)
# Its output is not looked at, and the log is removed now and then: neither shall fill the disk.
UNSEEN = ("/bin/sh", "-c", 'exec "$@" >/dev/null', "sh")
POLICY = """
[[app]]
exe = "load-reported"
remotes = []
detent = 0
actions = ["log", "block"]

[[app]]
exe = "load-distinct"
remotes = []
actions = ["log", "block"]

[[app]]
exe = "load-other"
remotes = []
actions = ["log", "block"]
"""


@dataclass(frozen=True)
class Row:
    """What was measured; *aim*: of what is aimed at in it, and whether it is *met*."""

    text: str
    aim: str = ""
    met: bool = True

    def __str__(self) -> str:
        told = f"   (aim: {self.aim}: {'met' if self.met else 'MISSED'})" if self.aim else ""
        return self.text + told


class Bench:
    """An agent, and programs in its cgroup."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.workshop = Workshop(make_directory())
        stack.callback(self.workshop.close)
        cgroup = stack.enter_context(ScratchCgroup())
        network = stack.enter_context(contextlib.closing(Network()))
        self.programs = stack.enter_context(contextlib.closing(Programs(cgroup, network)))
        folder = self.workshop.new_folder()
        main = folder / "aegis.toml"
        main.write_text(POLICY)
        self.agent = Agent(main, cgroup.path, folder, wrapper=UNSEEN)
        stack.callback(self.agent.close)
        self.agent.start()

    def compile(self, name: str) -> Path:
        return self.workshop.compile(name, Path(__file__).with_name("load.c"))

    def start(self, program: Path, count: int, rate: int, spread: int) -> Callable[[], float]:
        """Begin; what is returned waits for the end and gives the seconds it took."""
        process = self.programs.start(program, str(count), str(rate), str(spread))

        def end() -> float:
            while process.poll() is None:
                self.agent.log.unlink(missing_ok=True)  # kept small; asking costs more than this
                time.sleep(0.5)
            out, err = process.communicate(timeout=600)
            answer = json.loads(out)
            assert answer["refused"] == count, err
            return float(answer["seconds"])

        return end

    def written(self) -> int:
        return int(self.agent.status()["agent"]["log"]["written"])

    def settle(self) -> float:
        """Return when no more lines are written, and the time of the last look at fewer."""
        before, last = -1, time.monotonic()
        while (now := self.written()) != before:
            before, last = now, time.monotonic()
            time.sleep(0.2)
        return last


def events(bench: Bench) -> Iterator[Row]:
    """The whole pipeline: decode, name, enrich, JSON, write."""
    program = bench.compile("load-reported")
    for rate, seconds in ((50_000, 60), (100_000, 20), (0, 20)):
        before, lines = bench.agent.counters(), bench.written()
        cpu, begun = _cpu(bench.agent.pid), time.monotonic()
        count = (rate or 150_000) * seconds
        end = bench.start(program, count, rate, 2000)
        took = end()
        all_took = bench.settle() - begun
        after = bench.agent.counters()
        lost = after["lost"] - before["lost"]
        done = bench.written() - lines
        text = (
            f"offered {count / took:>9,.0f}/s for {took:5.1f} s: {done:>9,} lines, "
            f"{done / all_took:,.0f}/s, {lost:,} lost, "
            f"agent {(_cpu(bench.agent.pid) - cpu) / all_took:.0%} of a core"
        )
        if rate == 50_000:
            yield Row(text, "none lost", not lost)
        elif not rate:
            yield Row(text, f"{EVENTS_A_SECOND:,}/s", done / all_took >= EVENTS_A_SECOND)
        else:
            yield Row(text)


def memory(bench: Bench) -> Iterator[Row]:
    """A million distinct flows; of all processes of Aegis."""
    yield Row(f"at start            {_all_of(_held(bench.agent))}")
    end = bench.start(bench.compile("load-distinct"), 1_000_000, 20_000, 1_000_000)
    most, until = _held(bench.agent), time.monotonic() + 65
    while time.monotonic() < until:
        bench.agent.log.unlink(missing_ok=True)
        most = max(most, _held(bench.agent), key=lambda held: sum(held.values()))
        time.sleep(0.2)
    end()
    counters = bench.agent.counters()
    text = f"1,000,000 flows, most {_all_of(most)}"
    yield Row(text, f"{MEMORY / MIB:.0f} MiB", sum(most.values()) <= MEMORY)
    yield Row(f"afterwards          {_all_of(_held(bench.agent))}")
    folded = f"there without destination {counters['history_folded']:,}"
    yield Row(f"lost {counters['lost']:,}, not in history {counters['history_lost']:,}, {folded}")


def idle(bench: Bench) -> Iterator[Row]:
    """Nothing happens."""
    time.sleep(10)
    cpu, wakes, seconds = _cpu(bench.agent.pid), _wakes(bench.agent.pid), 30
    time.sleep(seconds)
    share = (_cpu(bench.agent.pid) - cpu) / seconds
    yield Row(f"{share:.2%} of a core", f"{IDLE_SHARE:.1%}", share <= IDLE_SHARE)
    yield Row(f"{(_wakes(bench.agent.pid) - wakes) / seconds:.1f} wake-ups a second")


def neighbour(bench: Bench) -> Iterator[Row]:
    """One makes noise, another's 10,000 denied flows are to be told within 5 s."""
    loud = 0
    for what, name, spread in NOISE:
        noisy = bench.compile(name)
        for rate in (LOUD, 0):
            for pace in (5000, 0):
                row, is_loud = _beside(bench, noisy, (rate, spread), pace)
                loud += is_loud
                yield Row(f"{what}: {row.text}", row.aim, row.met)
                bench.settle()
                os.truncate(bench.agent.log, 0)
    yield Row(f"{loud} rows with {LOUD:,}/s of noise", "one at least", loud > 0)


def _beside(bench: Bench, noisy: Path, noise_of: tuple[int, int], pace: int) -> tuple[Row, bool]:
    """*noise_of*: its rate and spread. Rates are a second; 0: as fast as they go."""
    rate, spread = noise_of
    count = 60 * (rate or 5_000_000)
    noise = bench.programs.start(noisy, str(count), str(rate), str(spread))
    try:
        time.sleep(2)
        # A new file each time: detent silences what the last one's flows had told.
        folder = bench.workshop.bin / str(time.monotonic_ns())
        folder.mkdir()
        other = shutil.copy(bench.compile("load-other"), folder)
        tail = Tail(bench.agent.log, f'"executable":"{other}"'.encode())
        before, begun = bench.agent.counters(), time.monotonic()
        bench.programs.run(other, str(FLOWS), str(pace), str(FLOWS), patience=60)
        ended, told = time.monotonic(), 0
        while told < FLOWS and time.monotonic() < ended + TOLD_S:
            told = tail.count()
            time.sleep(0.05)
        until = time.monotonic()
        after, seconds = bench.agent.counters(), time.monotonic() - begun
    finally:
        noise.kill()
        noise.wait()
    blocked, lost = (after[key] - before[key] for key in ("blocked", "lost"))
    pace_of_noise = (blocked - FLOWS) / seconds
    is_loud = pace_of_noise >= LOUD
    text = (
        f"{pace_of_noise:>9,.0f} denied/s of noise, {lost / seconds:>9,.0f}/s lost; "
        f"the other's {FLOWS:,} in {ended - begun:.2f} s: {told:,} told {until - ended:.1f} s later"
        + ("" if is_loud else f"; the noise did not reach {LOUD:,}/s")
    )
    return Row(text, f"all within {TOLD_S:.0f} s", told == FLOWS), is_loud


class Tail:
    """How often *mark* stands in what is added to a log from now on; nobody may move that."""

    def __init__(self, path: Path, mark: bytes) -> None:
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._mark, self._found, self._rest = mark, 0, b""

    def count(self) -> int:
        while block := self._file.read(MIB):
            whole, _, self._rest = (self._rest + block).rpartition(b"\n")
            self._found += whole.count(self._mark)
        return self._found


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1]) * 1024


def _held(agent: Agent) -> dict[str, int]:
    """Bytes of the agent, of who starts its brokers, and of the brokers."""
    starter, brokers = agent.starter(), 0
    assert starter is not None
    for pid in children().get(starter, ()):
        with contextlib.suppress(OSError):  # ended meanwhile
            brokers += _pss(pid)
    return {"agent": _pss(agent.pid), "starter": _pss(starter), "brokers": brokers}


def _all_of(held: dict[str, int]) -> str:
    each = ", ".join(f"{kind} {size / MIB:.1f}" for kind, size in held.items())
    return f"{sum(held.values()) / MIB:6.1f} MiB ({each})"


def _wakes(pid: int) -> int:
    statuses = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(n) for s in statuses for n in re.findall(r"^voluntary.*:\s+(\d+)", s, re.M))


PARTS = {part.__name__: part for part in (events, memory, idle, neighbour)}


def main(names: list[str]) -> int:
    missed = 0
    for name in names or PARTS:
        with contextlib.ExitStack() as stack:
            bench = Bench(stack)
            for row in PARTS[name](bench):
                missed += not row.met
                print(f"{name}: {row}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
