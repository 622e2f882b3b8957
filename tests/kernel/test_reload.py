# SPDX-License-Identifier: Apache-2.0
"""A thousand reloads under fire: every verdict is the old policy's or the new one's.

``AEGIS_RELOADS=10000 pytest tests/kernel/test_reload.py`` makes more of them. The
lane of the agent, from files to the flip, without its log: a million records
are judged here as they come, not written down.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from aegis.bpf.kernel import Kernel
from aegis.bpf.ring import BATCH, VERDICTS, fields_of
from aegis.bpf.trial import boot_ns
from aegis.config.load import load_policy
from aegis.policy.compile import compile_policy
from aegis.policy.model import Resolution, Verdict
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.flooding import flooding
from tests.kernel.network import Network
from tests.kernel.programs import Programs
from tests.kernel.settings import AT_ROOT
from tests.kernel.workshop import Workshop

RELOADS = int(os.environ.get("AEGIS_RELOADS", "50" if AT_ROOT else "1000"))
BOTH, TOLD = 8087, 8086

# Port 8087 is allowed by both, each time out of another table; 8086 by neither, and
# each attempt at it is an event whose verdict says which of the two was in force.
BLOCKING = f"""
[[app]]
exe = "reloaded"
ports = ["{BOTH}", "1000-2000"]
locals = ["127.0.0.0/8:3000", "127.0.0.1:3001"]
detent = 0
actions = ["log", "block"]
"""
LOGGING = f"""
[[app]]
exe = "another"
ports = ["1"]

[[app]]
exe = "reloaded"
locals = ["127.0.0.0/9:{BOTH}"]
remotes = ["{TOLD}", "192.0.2.7"]
detent = 0
actions = ["log"]
"""
POLICIES = ((BLOCKING, Verdict.BLOCKED), (LOGGING, Verdict.ALLOWED))


class Reloads:
    """Puts the two policies in force in turn; knows what each generation says of TOLD."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel = kernel
        self._main = folder / "aegis.toml"
        self.verdicts: dict[int, Verdict] = {}
        self.begun: dict[int, int] = {}  # on the kernel's clock: not yet in force
        self.ended: dict[int, int] = {}  # in force, and no program runs by the one before

    def is_timely(self, generation: int, boot_ns: int) -> bool:
        """Whether a verdict of *generation* may be given at *boot_ns*.

        While one policy is exchanged for the other it is of either, else of the one in force.
        """
        over = self.ended.get(generation + 1)
        return self.begun[generation] <= boot_ns and (over is None or boot_ns <= over)

    def reload(self) -> None:
        fresh = self.kernel.generation + 1
        text, verdict = POLICIES[fresh % 2]
        self._main.write_text(text)
        policy = load_policy(self._main, check_trust=False).policy
        tables = compile_policy(policy, Resolution())
        self.verdicts[fresh] = verdict  # before the flip: records come at once
        self.begun[fresh] = boot_ns()
        assert self.kernel.apply(tables) == fresh
        self.ended[fresh] = boot_ns()


class Reader:
    """Judges every record in a thread of its own."""

    def __init__(self, reloads: Reloads) -> None:
        self._reloads = reloads
        self._ring = reloads.kernel.open_ring()
        self._stop = threading.Event()
        self.seen: Counter[Verdict] = Counter()
        self.generations: set[int] = set()
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ending = self._stop.is_set()
            records = self._ring.drain()
            for record in map(fields_of, records):
                self._judge(record, VERDICTS[record["verdict"]])
            if len(records) < BATCH:
                if ending:
                    return
                time.sleep(0.001)

    def _judge(self, record: Mapping[str, Any], verdict: Verdict) -> None:
        generation, port, when = (record[key] for key in ("generation", "dport", "boot_ns"))
        self.seen[verdict] += 1
        self.generations.add(generation)
        if port != TOLD or self._reloads.verdicts.get(generation) is not verdict:
            self.wrong.append(f"port {port} {verdict} by generation {generation}")
        elif not self._reloads.is_timely(generation, when):
            self.wrong.append(f"generation {generation} at {when}, when it was not in force")

    def close(self) -> None:
        """Once all that is in the ring was read."""
        self._stop.set()
        self._thread.join()
        self._ring.close()


@pytest.fixture
def place() -> Iterator[ScratchCgroup]:
    with ScratchCgroup() as made:
        yield made


@pytest.fixture
def reloads(place: ScratchCgroup, tmp_path: Path) -> Iterator[Reloads]:
    """One policy in force, attached where nothing else is."""
    kernel = Kernel(place.path)
    kernel.start()
    try:
        made = Reloads(kernel, tmp_path)
        made.reload()
        kernel.attach()
        yield made
    finally:
        kernel.close()
        kernel.pins.remove()


@pytest.fixture
def clients(place: ScratchCgroup, network: Network) -> Iterator[Programs]:
    made = Programs(place, network)
    yield made
    made.close()


def test_a_verdict_of_an_earlier_policy_is_noticed(tmp_path: Path) -> None:
    """Of the current one or, while they are exchanged, the one before: of no other."""
    kernel: Any = None  # not asked
    reloads = Reloads(kernel, tmp_path)
    reloads.begun, reloads.ended = {1: 10, 2: 20, 3: 30}, {1: 11, 2: 21}
    right = [(1, 10), (1, 21), (2, 20), (2, 30), (2, 99), (3, 30)]
    wrong = [(1, 9), (1, 22), (2, 19), (3, 29)]
    assert [reloads.is_timely(*each) for each in right + wrong] == [True] * 6 + [False] * 4


def total(answers: list[str], key: str) -> int:
    return sum(int(json.loads(answer)[key]) for answer in answers)


def test_every_verdict_is_of_the_generation_it_names(
    reloads: Reloads, clients: Programs, workshop: Workshop
) -> None:
    """What both policies allow is never refused; all else is told, counted and accounted for."""
    program = workshop.install("reloaded")
    both: list[str] = []
    told: list[str] = []
    reader = Reader(reloads)
    try:
        with flooding(clients, program, BOTH, both), flooding(clients, program, TOLD, told):
            for _ in range(RELOADS):
                reloads.reload()
    finally:
        reader.close()
    assert reader.wrong == []
    assert (total(both, "refused"), total(both, "failed"), total(told, "failed")) == (0, 0, 0)
    counters = reloads.kernel.counters()
    assert total(told, "refused") == counters["blocked"]
    assert total(both, "allowed") == counters["quiet"]
    assert sum(reader.seen.values()) == counters["emitted"]
    assert counters["emitted"] + counters["lost"] == total(told, "refused") + total(told, "allowed")
    assert set(reader.seen) == {Verdict.BLOCKED, Verdict.ALLOWED}
    assert len(reader.generations) > RELOADS // 4
    print(f"{reloads.kernel.generation} generations, {counters}, read {dict(reader.seen)}")
