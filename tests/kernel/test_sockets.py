# SPDX-License-Identifier: Apache-2.0
"""Sockets other than TCP's and UDP's: refused when made, unless ``sockets`` allows them."""

import errno
import socket
from dataclasses import dataclass

import pytest

from tests.kernel.agent import Agent, matches
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

POLICY = """\
[global]
unconfigured_actions = ["log"]
mode = "{mode}"

[[app]]
exe = "maker-none"
remotes = ["9"]
detent = 0
actions = ["log", "kill"]

[[app]]
exe = "maker-raw"
remotes = ["9"]
sockets = ["raw"]
actions = ["log", "block"]

[[app]]
exe = "maker-icmp"
remotes = ["9"]
sockets = ["icmp", "sctp", "udplite", "dccp", "other"]
actions = ["log", "block"]
"""

SCTP, DCCP, UDPLITE, MPTCP, L2TP = 132, 33, 136, 262, 115
SOCK_DCCP = 6
ABSENT = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)  # what a kernel without it says


@dataclass(frozen=True)
class Kind:
    """*word*: of ``sockets``; None: allowed without one; empty: no word allows it."""

    name: str
    type: int
    protocol: int
    word: str | None
    transport: str = ""

    def words(self, family: int) -> list[str]:
        return [str(int(word)) for word in (family, self.type, self.protocol)]


KINDS = (
    Kind("tcp", socket.SOCK_STREAM, 0, None),
    Kind("udp", socket.SOCK_DGRAM, 0, None),
    Kind("mptcp", socket.SOCK_STREAM, MPTCP, None),
    Kind("raw-udp", socket.SOCK_RAW, socket.IPPROTO_UDP, "raw", "udp"),
    Kind("ipproto-raw", socket.SOCK_RAW, socket.IPPROTO_RAW, "raw", "255"),
    Kind("raw-icmp", socket.SOCK_RAW, socket.IPPROTO_ICMP, "icmp", "icmp"),
    Kind("sctp-stream", socket.SOCK_STREAM, SCTP, "sctp", "sctp"),
    Kind("sctp-packets", socket.SOCK_SEQPACKET, SCTP, "sctp", "sctp"),
    Kind("dccp", SOCK_DCCP, DCCP, "dccp", "dccp"),
    Kind("udplite", socket.SOCK_DGRAM, UDPLITE, "udplite", "udplite"),
    Kind("l2tp", socket.SOCK_DGRAM, L2TP, "other", "115"),
)
ALLOWED = {"maker-raw": {"raw"}, "maker-icmp": {"icmp", "sctp", "udplite", "dccp", "other"}}
OTHER = [kind for kind in KINDS if kind.word is not None]
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])


@pytest.fixture
def agent(agents: Agents) -> Agent:
    return agents.share(POLICY.format(mode="enforce"))[0]


def make(programs: Programs, workshop: Workshop, name: str, kind: Kind, family: int) -> int:
    """The errno of making it; the kernel's own for what it does not have."""
    program = workshop.install(name, workshop.maker)
    return programs.run(program, *kind.words(family)).code


def exists(programs: Programs, workshop: Workshop, kind: Kind, family: int) -> bool:
    return make(programs, workshop, "maker-free", kind, family) not in ABSENT


@FAMILIES
@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.name)
def test_other_kinds_are_refused_when_made(
    kind: Kind, family: int, agent: Agent, programs: Programs, workshop: Workshop
) -> None:
    """With an event that names the kind; nobody is killed: nothing was sent."""
    mark = agent.mark()
    status = make(programs, workshop, "maker-none", kind, family)
    if not exists(programs, workshop, kind, family):
        assert status in ABSENT
        return
    assert status == errno.EPERM
    event = agent.wait_event(mark, process__name="maker-none")
    assert matches(
        event,
        event__action="socket-blocked",
        aegis__verdict="blocked",
        aegis__hook="socket",
        aegis__scope="socket",
        network__transport=kind.transport,
    )
    assert "destination" not in event and "source" not in event


@FAMILIES
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OTHER], ids=lambda kind: kind.name)
def test_tcp_and_udp_are_made_unasked(
    kind: Kind, family: int, agent: Agent, programs: Programs, workshop: Workshop
) -> None:
    assert make(programs, workshop, "maker-none", kind, family) == 0


def test_icmp_echo_sockets_are_allowed(
    agent: Agent, programs: Programs, workshop: Workshop
) -> None:
    """What ping opens; the group range may forbid it, which is not EPERM."""
    echo = Kind("ping", socket.SOCK_DGRAM, socket.IPPROTO_ICMP, None)
    assert make(programs, workshop, "maker-none", echo, socket.AF_INET) in (0, errno.EACCES)


@FAMILIES
@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.name)
def test_sockets_allows_what_it_lists(
    kind: Kind, family: int, agent: Agent, programs: Programs, workshop: Workshop
) -> None:
    """``raw`` is every raw socket, ``icmp`` only those of ICMP."""
    for name, words in ALLOWED.items():
        allowed = kind.word in words or (kind.word == "icmp" and "raw" in words)
        status = make(programs, workshop, name, kind, family)
        assert status in (0 if allowed else errno.EPERM, *ABSENT)


def test_an_unconfigured_program_may_make_any_and_nothing_is_said(
    agent: Agent, programs: Programs, workshop: Workshop
) -> None:
    """Its connections are what is reported."""
    mark = agent.mark()
    kind = Kind("raw", socket.SOCK_RAW, socket.IPPROTO_UDP, "raw")
    assert make(programs, workshop, "maker-free", kind, socket.AF_INET) == 0
    assert not agent.settled_events(mark, process__name="maker-free")


def test_in_observe_mode_it_is_made_and_said(
    agents: Agents, programs: Programs, workshop: Workshop
) -> None:
    agent, _ = agents.share(POLICY.format(mode="observe"))
    mark = agent.mark()
    kind = Kind("raw", socket.SOCK_RAW, socket.IPPROTO_UDP, "raw")
    assert make(programs, workshop, "maker-none", kind, socket.AF_INET) == 0
    event = agent.wait_event(mark, process__name="maker-none")
    assert matches(event, event__action="socket-would-block", aegis__verdict="would-block")
