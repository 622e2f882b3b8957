# SPDX-License-Identifier: Apache-2.0
"""Sockets of families that no cgroup hook sees: packet, vsock and the like.

Refused where the BPF LSM is active; elsewhere ``status`` says that it is not.
"""

import errno
import socket
from pathlib import Path

import pytest

from aegis.bpf.tiers import LSM
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "family-plain"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
exe = "family-sniffer"
ports = ["8086"]
sockets = ["packet"]
actions = ["log", "block"]

[[app]]
exe = "family-reported"
ports = ["8086"]
actions = ["log"]
"""
# Says what became of each: 0, or the errno.
_SCRIPT = """
import socket, sys
for family in sys.argv[1:]:
    try:
        socket.socket(int(family), socket.SOCK_RAW).close()
    except OSError as error:
        print(error.errno)
    else:
        print(0)
"""
PACKET, VSOCK, XDP = socket.AF_PACKET, socket.AF_VSOCK, 44
LOCAL = (socket.AF_UNIX, socket.AF_NETLINK)


@pytest.fixture
def agent(agents: Agents) -> Agent:
    agent, _ = agents.share(POLICY)
    return agent


def refused(
    agent: Agent, workshop: Workshop, programs: Programs, name: str, *families: int
) -> tuple[set[int], list[str]]:
    """Which of *families* the program *name* may not make, and the verdicts told."""
    since = agent.mark()
    python = workshop.install(name, Path("/usr/bin/python3").resolve())
    outcome = programs.run(python, "-I", "-S", "-c", _SCRIPT, *map(str, families))
    assert outcome.code == 0, outcome
    answers = zip(families, map(int, outcome.stdout.split()), strict=True)
    events = agent.settled_events(since, process__pid=outcome.pid)
    assert all(field(event, "aegis.hook") == "socket" for event in events)
    verdicts = [str(field(event, "aegis.verdict")) for event in events]
    return {family for family, answer in answers if answer == errno.EPERM}, verdicts


def test_a_program_with_a_rule_is_refused_what_it_does_not_list(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """To make a socket sends nothing: it is refused and told, and nobody is killed."""
    covered = agent.status()["tiers"][LSM]["active"]
    families = (PACKET, VSOCK, XDP, *LOCAL)
    denied, verdicts = refused(agent, workshop, programs, "family-plain", *families)
    assert denied == ({PACKET, VSOCK, XDP} if covered else set())
    assert verdicts == (["blocked"] * 3 if covered else [])


def test_a_rule_may_list_packet_sockets(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """``packet`` is what sees the wire; there is no word for the rest."""
    covered = agent.status()["tiers"][LSM]["active"]
    denied, _ = refused(agent, workshop, programs, "family-sniffer", PACKET, VSOCK, XDP)
    assert denied == ({VSOCK} if covered else set())


@pytest.mark.parametrize("name", ["family-reported", "family-stranger"])
def test_who_is_not_blocked_makes_what_it_likes(
    agent: Agent, workshop: Workshop, programs: Programs, name: str
) -> None:
    denied, verdicts = refused(agent, workshop, programs, name, PACKET, VSOCK, *LOCAL)
    assert denied == set()
    assert "blocked" not in verdicts
