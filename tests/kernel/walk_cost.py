# SPDX-License-Identifier: Apache-2.0
"""What ``tamper_guard`` adds to path walks: no test, since a time is no reason to fail.

``.venv/bin/python -m vmtests 6.12 -s tests/kernel/walk_cost.py`` runs it in a guest, where the BPF
LSM is active; its processor is emulated, so the ratio says more than the nanoseconds, and neither
is that of a real one. The agent runs all the while: with the guard, and then without, in turn,
since a reload ends it and only a start begins it.
"""

import statistics
import subprocess
from pathlib import Path

import pytest

from aegis.bpf.guard import GUARD
from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.guarded import wait_until
from tests.kernel.test_evidence import POLICY as RULES
from tests.kernel.workshop import Workshop

POLICY = "[global]\ntamper_guard = {wanted}\n" + RULES
ROUNDS, COUNT, BATCHES = 4, 1000, 31
DEPTH = 8
CALLS = ("stat()", "open() and close()")


def is_guarded(agent: Agent) -> bool:
    return bool(agent.status()["tiers"][GUARD]["active"])


def measure(walker: Path, path: Path) -> list[float]:
    command = [str(walker), str(path), str(COUNT), str(BATCHES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_print_what_the_guard_adds_to_path_walks(
    agents: Agents, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walker = workshop.compile("walker", Path(__file__).with_name("walker.c"))
    path = tmp_path.joinpath(*["d"] * DEPTH)
    path.parent.mkdir(parents=True)
    path.touch()
    took: dict[str, list[list[float]]] = {"plain": [], "guarded": []}
    agent, policy = agents.start(POLICY.format(wanted="true"))
    for number in range(ROUNDS):
        if number:
            agent.stop()
            policy.replace(POLICY.format(wanted="true"))
            agent.start()
        assert is_guarded(agent), "this kernel cannot carry the guard out"
        took["guarded"].append(measure(walker, path))
        policy.replace(POLICY.format(wanted="false"))
        agent.reload()
        wait_until(lambda: not is_guarded(agent))
        took["plain"].append(measure(walker, path))
    with capsys.disabled():
        print(f"\npath of {len(path.parts) - 1} names, emulated processor, {ROUNDS} rounds")
        for call, name in enumerate(CALLS):
            plain, guarded = ([one[call] for one in took[key]] for key in ("plain", "guarded"))
            ratios = sorted(after / before for before, after in zip(plain, guarded, strict=True))
            print(
                f"{name:20} {statistics.median(plain):9.0f} ns, with the guard "
                f"{statistics.median(guarded):9.0f} ns; ratio {statistics.median(ratios):.3f} "
                f"({ratios[0]:.3f}..{ratios[-1]:.3f})"
            )
