# SPDX-License-Identifier: Apache-2.0
"""Every way out, in every spelling of loopback: the same verdict."""

from ipaddress import IPv6Address, ip_address

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.forms import CASE_IDS, CASES, FORMS, Form
from tests.kernel.network import REMOTE4, REMOTE6
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""

UNREACHED = 8187  # served, and no test of this run may ever get there

REMOTE_CASES = [
    (form, address) for form in FORMS for address in (REMOTE4, REMOTE6) if form.exists_for(address)
]
REMOTE_IDS = [f"{form.name}-{address}" for form, address in REMOTE_CASES]


@pytest.fixture(scope="module")
def agent_and_policy(servers: Servers, agents: Agents) -> tuple[Agent, PolicyFile]:
    servers.open(8086, UNREACHED)
    return agents.share(POLICY)


@pytest.fixture
def talk(
    agent_and_policy: tuple[Agent, PolicyFile], workshop: Workshop, programs: Programs
) -> Talk:
    return programs.standing(workshop.install("restricted"))


def canonical(address: str) -> str:
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(parsed)


@pytest.mark.parametrize(("form", "address"), CASES + REMOTE_CASES, ids=CASE_IDS + REMOTE_IDS)
def test_form_reaches_what_is_allowed(
    form: Form, address: str, talk: Talk, servers: Servers
) -> None:
    """The allowed port is reached, with exactly what the form sends."""
    before = servers.counted(8086)
    assert talk.say(f"{form.name} {address} 8086 8086") == "OK"
    after = (servers.connections(8086), servers.datagrams(8086))
    assert (after[0] - before[0], after[1] - before[1]) == (form.connections, form.datagrams)


@pytest.mark.parametrize(("form", "address"), CASES + REMOTE_CASES, ids=CASE_IDS + REMOTE_IDS)
def test_form_is_refused_what_is_not_allowed(
    form: Form,
    address: str,
    talk: Talk,
    servers: Servers,
    agent_and_policy: tuple[Agent, PolicyFile],
) -> None:
    """EPERM, nothing reaches the server, and one event that names the address plainly."""
    agent, policy = agent_and_policy
    since = agent.mark()
    assert talk.say(f"{form.name} {address} {UNREACHED} 8086") == "EPERM"
    assert servers.reached(UNREACHED) == 0
    [event] = agent.settled_events(since, destination__port=UNREACHED)
    wanted = {
        "process.name": "restricted",
        "destination.ip": canonical(address),
        "network.transport": form.transport,
        "aegis.verdict": "blocked",
        "aegis.scope": "remote" if address in (REMOTE4, REMOTE6) else "local",
        "rule.name": policy.rule('exe = "restricted"'),
    }
    assert {name: field(event, name) for name in wanted} == wanted


def test_udp_connect_to_port_0_is_harmless_and_silent(
    talk: Talk, agent_and_policy: tuple[Agent, PolicyFile]
) -> None:
    """getaddrinfo() does it to sort addresses: allowed, and no event."""
    agent, _ = agent_and_policy
    since = agent.mark()
    # The socket is connected to port 0 first, and only the send to 8086 leaves.
    assert talk.say("udp-connected-other 127.0.0.1 8086 0") == "OK"
    assert agent.settled_events(since, process__pid=talk.pid) == []


def test_a_program_that_exits_at_once_leaves_a_complete_event(
    agent_and_policy: tuple[Agent, PolicyFile], workshop: Workshop, programs: Programs
) -> None:
    """The record comes from the kernel: /proc is gone by the time the agent reads it."""
    agent, _ = agent_and_policy
    since = agent.mark()
    restricted = workshop.install("restricted")
    outcome = programs.run(restricted, "udp-send", "127.0.0.1", "8087")
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "process.executable") == str(restricted)
    assert field(event, "process.command_line") == f"{restricted} udp-send 127.0.0.1 8087"
