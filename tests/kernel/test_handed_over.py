# SPDX-License-Identifier: Apache-2.0
"""``deny_socket_fds``: sockets another process hands over, where the BPF LSM is active.

Elsewhere they pass, and that is said: by ``status``, and by the agent when it starts.
"""

from pathlib import Path

import pytest

from aegis.bpf.tiers import LSM
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.settings import AT_ROOT
from tests.kernel.workshop import Workshop

POLICY = """
[global]
deny_socket_fds = {deny}
detent = 0

[[app]]
exe = "hands-receiver"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
exe = "hands-reported"
ports = ["8086"]
actions = ["log"]
"""
# Sends itself a file, or takes it out of a child; says whether it got it.
_SCRIPT = """
import os, signal, socket, sys
how, kind = sys.argv[1:]
if kind == "file":
    file = open("/dev/null")
else:
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
    file = socket.socket(family, socket.SOCK_DGRAM)
if how == "rights":
    a, b = socket.socketpair()
    socket.send_fds(a, [b"."], [file.fileno()])
    print("got" if socket.recv_fds(b, 1, 1)[1] else "refused")
else:
    child = os.fork()
    if not child:
        signal.pause()
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(438, os.pidfd_open(child), file.fileno(), 0)  # pidfd_getfd
    os.kill(child, signal.SIGKILL)
    print("got" if got >= 0 else "refused" if ctypes.get_errno() == 1 else ctypes.get_errno())
"""
HOWS = ("rights", "pidfd")


def _agent(agents: Agents, deny: str) -> tuple[Agent, bool]:
    """The agent with *deny*, and whether it can carry it out here."""
    agent, _ = agents.share(POLICY.format(deny=deny))
    active = agent.status()["tiers"][LSM]["active"]
    assert active or not AT_ROOT, "the BPF LSM is active on every kernel of the matrix"
    return agent, active


def _hand(
    workshop: Workshop, programs: Programs, name: str, how: str, kind: str
) -> tuple[str, int]:
    python = workshop.install(name, Path("/usr/bin/python3").resolve())
    outcome = programs.run(python, "-I", "-S", "-c", _SCRIPT, how, kind)
    assert outcome.code == 0, outcome
    return outcome.word, outcome.pid


@pytest.mark.parametrize("kind", ["inet", "inet6"])
@pytest.mark.parametrize("how", HOWS)
def test_a_socket_handed_over_is_refused_and_told(
    agents: Agents, workshop: Workshop, programs: Programs, how: str, kind: str
) -> None:
    """Refused and never killed for it: who sends is not who receives."""
    agent, active = _agent(agents, "true")
    since = agent.mark()
    word, pid = _hand(workshop, programs, "hands-receiver", how, kind)
    assert word == ("refused" if active else "got")
    events = agent.settled_events(since, process__pid=pid)
    assert [field(e, "aegis.verdict") for e in events] == ["blocked"] * active
    assert [field(e, "aegis.hook") for e in events] == ["receive"] * active


@pytest.mark.parametrize("kind", ["file", "unix"])
@pytest.mark.parametrize("how", HOWS)
def test_what_leads_to_no_network_is_handed_over(
    agents: Agents, workshop: Workshop, programs: Programs, how: str, kind: str
) -> None:
    _agent(agents, "true")
    assert _hand(workshop, programs, "hands-receiver", how, kind)[0] == "got"


@pytest.mark.parametrize(
    ("name", "deny"),
    [
        pytest.param("hands-receiver", "false", id="not-asked-for"),
        pytest.param("hands-reported", "true", id="a-rule-that-does-not-block"),
        pytest.param("hands-stranger", "true", id="no-rule"),
    ],
)
def test_others_are_handed_sockets(
    agents: Agents, workshop: Workshop, programs: Programs, name: str, deny: str
) -> None:
    agent, _ = _agent(agents, deny)
    since = agent.mark()
    word, pid = _hand(workshop, programs, name, "rights", "inet")
    assert word == "got"
    assert agent.settled_events(since, process__pid=pid) == []


def test_what_cannot_be_carried_out_is_said(agents: Agents) -> None:
    """At a start and at each reload; and not said where it is carried out."""
    _agent(agents, "false")
    agent, active = _agent(agents, "true")
    said = "deny_socket_fds is not carried out" in agent.reload()
    assert said is not active
