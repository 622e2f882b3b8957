# SPDX-License-Identifier: Apache-2.0
"""What not every kernel lets run: ``status`` says what works here, and it does.

On a kernel of the support matrix the tiers must be active. Elsewhere, as on a
machine that refuses trampolines, the next way down is what is tested.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aegis.bpf.cgroup import instance_name
from aegis.bpf.kernel import Kernel
from aegis.bpf.object import BpfObject
from aegis.bpf.pins import Pins
from aegis.bpf.tiers import (
    ACTIVE_LSMS,
    IN_HOOK,
    LSM,
    NAMES,
    OBJECTS,
    TRACING,
    Drill,
    see_running,
)
from aegis.errors import KernelError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy, Resolution
from tests.kernel.agent import Agent, field
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.conftest import Agents
from tests.kernel.programs import Outcome, Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "doomed"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
exe = "refused"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "parent"
ports = ["8086"]
actions = ["log", "kill"]
"""
HOWS = ("connect", "sendto", "fastopen")
ATTEMPTS = 10


class House:
    """The agent, and a program that shows whether it ran on after its call."""

    def __init__(self, agent: Agent, workshop: Workshop, programs: Programs) -> None:
        self.agent = agent
        self._workshop = workshop
        self._programs = programs
        self._byte = workshop.new_folder() / "byte"

    def tiers(self) -> dict[str, Any]:
        tiers = self.agent.status()["tiers"]
        assert isinstance(tiers, dict)
        return tiers

    def killer(self) -> str:
        """Who has to kill here."""
        tiers = self.tiers()
        if tiers[IN_HOOK]["active"]:
            return "hook"
        return "tracing" if tiers[TRACING]["active"] else "agent"

    def try_out(self, name: str, how: str) -> tuple[Outcome, bool]:
        """How it ended, and whether an instruction ran after the call."""
        prober = self._workshop.install(name)
        argv = (prober, "witness", self._byte, how, "127.0.0.1", "8087")
        outcome = self._programs.run(*argv)
        return outcome, self._byte.read_bytes() != b"\0"


@pytest.fixture
def house(agents: Agents, workshop: Workshop, programs: Programs, servers: Servers) -> House:
    servers.open(8086, 8087)
    agent, _ = agents.share(POLICY)
    return House(agent, workshop, programs)


def test_status_says_of_each_tier_that_it_works_or_why_not(house: House) -> None:
    tiers = house.tiers()
    assert tuple(tiers) == NAMES
    for name, tier in tiers.items():
        assert tier["active"] is (not tier["reason"]), name
    assert not (tiers[IN_HOOK]["active"] and tiers[TRACING]["active"])
    said = house.agent.command("status").stdout
    told = [line.split()[0] for line in said.splitlines() if " active" in line]
    assert [name for name in told if name in NAMES] == list(NAMES), said


def test_every_kernel_of_the_matrix_has_every_tier(house: House) -> None:
    """Elsewhere a tier may be refused: by the kernel, in its own words, and by nothing else."""
    tiers = house.tiers()
    if AT_ROOT:
        assert house.killer() in {"hook", "tracing"}, tiers
        assert tiers[LSM]["active"], tiers
        return
    refused = "the kernel refused the BPF programs: Operation not permitted"
    assert tiers[TRACING]["reason"] in {"", refused, f"not needed: {IN_HOOK} does its work"}
    said = tiers[LSM]["reason"]
    assert said in {"", refused} or said.startswith(f"bpf is not in {ACTIVE_LSMS}: ")


def test_a_program_that_never_runs_is_not_counted_on() -> None:
    """As an LSM program where the BPF LSM is not active: loaded, attached, and no more."""
    main = BpfObject()
    try:
        with pytest.raises(KernelError, match="aegis_idle was loaded and attached, but does not"):
            see_running(main, "aegis_idle", Drill(0, lambda: None))
    finally:
        main.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """Attached at a cgroup of its own, where nobody is."""
    with ScratchCgroup() as place:
        made = Kernel(place.path)
        made.start()
        try:
            made.apply(compile_policy(Policy(), Resolution()))
            made.attach()
            yield made
        finally:
            made.close()
            made.pins.remove()


def test_a_link_of_what_is_optional_is_evidence(kernel: Kernel) -> None:
    """Also where no kernel lets one run: then another program's stands for it.

    The same link: no tracing program can be attached twice on 6.1.
    """
    tiers = kernel._tiers
    assert tiers is not None
    evidence = kernel.evidence()
    evidence.take()
    tiers.links["aegis_stands_in"] = os.dup(kernel._links["aegis_fork"])
    evidence.take()
    assert list(evidence.look()) == ["the pin of aegis_stands_in is gone"]
    pin = kernel.pins.link_path("aegis_stands_in")
    kernel.pins.pin(tiers.links["aegis_stands_in"], pin)
    assert list(evidence.look()) == []
    pin.unlink()
    kernel.pins.pin(kernel._links["aegis_exec"], pin)
    assert list(evidence.look()) == ["the pin of aegis_stands_in is another's"]


def test_who_removes_the_pin_of_what_is_optional_is_told_of(agents: Agents) -> None:
    """Each link of each tier that is active here; at the root of a guest there are some."""
    agent, _ = agents.start(POLICY)
    tiers = agent.status()["tiers"]
    links = [
        link for name, programs in OBJECTS.items() if tiers[name]["active"] for link in programs
    ]
    assert links or not AT_ROOT
    pins = Pins("root" if AT_ROOT else instance_name(agent.cgroup))
    for link in links:
        pins.link_path(link).unlink()
        agent.wait_event(aegis__notice="tampered", message=f"the pin of {link} is gone")
    agents.close()


@pytest.mark.parametrize("how", HOWS)
def test_a_killed_program_runs_no_instruction_after_its_call(
    house: House, servers: Servers, how: str
) -> None:
    """Where the kernel does the killing. The event and the notice come all the same."""
    since, before, killer = house.agent.mark(), servers.reached(8087), house.killer()
    pids, by = [], set()
    for _ in range(ATTEMPTS):
        outcome, ran_on = house.try_out("doomed", how)
        assert outcome.code == -signal.SIGKILL or killer == "agent"
        assert not ran_on or killer == "agent"
        pids.append(outcome.pid)
    assert servers.reached(8087) == before
    for pid in pids:
        house.agent.wait_event(since, process__pid=pid, aegis__verdict="blocked")
        if killer != "agent":
            killed = {"process__pid": pid, "aegis__notice": "process-killed"}
            by.add(field(house.agent.wait_event(since, **killed), "aegis.kill.by"))
    # The agent may come in between the hook and the tracing program.
    assert killer in by or killer == "agent"
    assert by <= ({"hook"} if killer == "hook" else {"tracing", "agent"})


@pytest.mark.parametrize("how", HOWS)
def test_a_program_that_is_only_refused_runs_on(house: House, how: str) -> None:
    """The witness can speak: silence in the test above means something."""
    outcome, ran_on = house.try_out("refused", how)
    assert (outcome.code, ran_on) == (0, True)


def test_the_kernel_kills_without_an_agent(house: House) -> None:
    """What was put in force goes on killing when the agent is gone; a new one takes it over."""
    killer = house.killer()
    assert house.agent.stop(signal.SIGKILL) == -signal.SIGKILL
    outcome, ran_on = house.try_out("doomed", "connect")
    assert (outcome.code == -signal.SIGKILL, ran_on) == ((killer != "agent"), (killer == "agent"))
    house.agent.start()
    assert house.killer() == killer
    outcome, _ = house.try_out("doomed", "connect")
    assert outcome.code == -signal.SIGKILL or killer == "agent"


# Starts the agent, waits to be told (in a FIFO: to look again and again takes an emulated
# processor away from the agent), connects where it must not, and says it is still there.
_PARENT = """
echo $$ > {cgroup}/cgroup.procs
exec 4<>{go}
"$@" 4<&- &
child=$!
trap 'kill $child' TERM
read -r <&4
{{ true 3<>/dev/tcp/127.0.0.1/8087; }} 2>/dev/null
touch {alive}
while kill -0 $child 2>/dev/null; do wait $child; done
"""


def test_what_the_agent_descends_from_is_not_killed(
    agents: Agents, workshop: Workshop, scratch: ScratchCgroup
) -> None:
    """Not by the kernel either: its policy would end the agent's own shell."""
    folder = workshop.new_folder()
    go, alive = folder / "go", folder / "alive"
    os.mkfifo(go)
    script = _PARENT.format(cgroup=scratch.path, go=go, alive=alive)
    parent = workshop.install("parent", "/bin/bash")
    agent, _ = agents.start(POLICY, wrapper=(str(parent), "-c", script, "parent"))
    since = agent.mark()
    go.write_text("\n")
    notice = agent.wait_event(since, aegis__notice="kill-skipped", process__pid=agent.pid)
    assert field(notice, "aegis.kill.detail") == "Aegis descends from it"
    _wait_for(alive)
    assert agent.is_running


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
