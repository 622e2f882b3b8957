# SPDX-License-Identifier: Apache-2.0
"""Names in rules, resolved as the host resolves them.

The agent runs in a mount namespace in which /etc/hosts is ours, so nothing of
the host is touched and no query is sent.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE4_NEAR, REMOTE4_OTHER, REMOTE6
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop

# .invalid names are never in the DNS (RFC 6761).
HOSTS = f"""\
127.0.0.1 localhost
{REMOTE4} bob.invalid
{REMOTE6} bob.invalid
127.0.0.1 sneaky.invalid
"""

POLICY = """
[global]
detent = 0

[[app]]
exe = "to-bob"
remotes = ["bob.invalid:8086"]
actions = ["log", "block"]

[[app]]
exe = "to-nobody"
remotes = ["nobody.invalid:8086"]
actions = ["log", "block"]

[[app]]
exe = "to-sneaky"
locals = []
remotes = ["sneaky.invalid:8086"]
actions = ["log", "block"]
"""


@dataclass(frozen=True)
class House:
    agent: Agent
    policy: PolicyFile
    hosts: Path


@pytest.fixture(scope="module")
def house(workshop: Workshop, servers: Servers, agents: Agents) -> House:
    servers.open(8086, 8087)
    hosts = workshop.new_folder() / "hosts"
    hosts.write_text(HOSTS)
    if not Path("/proc/mounts").read_text().count(" /sys/fs/bpf bpf "):
        # Else the agent would mount it where only the agent sees it.
        subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
    line = f'mount --bind "{hosts}" /etc/hosts && exec "$@"'
    wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", line, "sh"]
    agent, policy = agents.start(POLICY, wrapper=wrapper)
    return House(agent, policy, hosts)


@pytest.mark.parametrize("address", [REMOTE4, REMOTE6])
def test_every_address_of_a_name_is_reached(
    address: str, house: House, workshop: Workshop, programs: Programs
) -> None:
    """Each family, at the rule's port and at no other."""
    talk = programs.standing(workshop.install("to-bob"))
    assert talk.reaches("tcp", address, 8086)
    assert not talk.reaches("tcp", address, 8087)


@pytest.mark.parametrize("address", [REMOTE4_NEAR, REMOTE4_OTHER])
def test_other_addresses_are_refused(
    address: str, house: House, workshop: Workshop, programs: Programs
) -> None:
    """A name is its addresses and no neighbour of theirs."""
    assert not programs.standing(workshop.install("to-bob")).reaches("tcp", address, 8086)


def test_the_event_names_the_host(house: House, workshop: Workshop, programs: Programs) -> None:
    """``destination.domain``: what the policy calls that address."""
    since = house.agent.mark()
    outcome = programs.run(workshop.install("to-bob"), "tcp", REMOTE4, "8087")
    [event] = house.agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "destination.domain") == "bob.invalid"


def test_a_name_that_does_not_resolve_allows_nothing_and_is_told(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """A warning with the place it is written at; never "any address"."""
    talk = programs.standing(workshop.install("to-nobody"))
    assert not talk.reaches("tcp", REMOTE4, 8086)
    assert not talk.reaches("tcp", REMOTE6, 8086)
    text = house.policy.path.read_text()
    line = text[: text.index("nobody.invalid")].count("\n") + 1
    notice = house.agent.wait_event(aegis__notice="name-unresolved")
    assert field(notice, "rule.name") == f"{house.policy.path}:{line}"
    assert "nobody.invalid" in field(notice, "message")


def test_a_public_name_cannot_point_inside(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """An answer of loopback to a public name opens no local port."""
    assert not programs.standing(workshop.install("to-sneaky")).reaches("tcp", "127.0.0.1", 8086)


def test_a_reload_resolves_anew_and_keeps_the_old_address_for_a_while(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """Rotation must not cut a legitimate client: new addresses come, old ones linger."""
    talk = programs.standing(workshop.install("to-bob"))
    house.hosts.write_text(HOSTS.replace(REMOTE4, REMOTE4_OTHER))
    assert house.agent.command("reload").returncode == 0
    assert talk.reaches("tcp", REMOTE4_OTHER, 8086)
    assert talk.reaches("tcp", REMOTE4, 8086)
    assert not talk.reaches("tcp", REMOTE4_NEAR, 8086)
