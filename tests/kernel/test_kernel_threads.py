# SPDX-License-Identifier: Apache-2.0
"""The kernel's own threads are one program, with a name that no file can have.

The second subflow of an MPTCP connection is connected by a kernel worker, in the
cgroup of the program whose connection it joins.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE4_OTHER, Network
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

KERNEL = "[kernel]"
MPTCP = 262
PORT = 8096
PYTHON = Path("/usr/bin/python3").resolve()

POLICY = f"""
[global]
detent = 0
unconfigured_actions = ["log"]

[[app]]
path = "{KERNEL}"
ports = ["8086"]
actions = ["log", "block"]
"""
UNSAID = POLICY.partition("[[app]]")[0]

# Connects, and stays until it is told to end: the second subflow comes meanwhile.
CLIENT = f"""
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP}) as client:
    client.connect(("{REMOTE4}", {PORT}))
    client.sendall(b"hello")
    client.recv(5)
    sys.stdin.read()
"""


class Subflows:
    """An MPTCP server, and a kernel that joins a second subflow to each connection to it."""

    def __init__(self, network: Network, workshop: Workshop, programs: Programs) -> None:
        self._network, self._programs = network, programs
        # Under a name of its own: the harness has a rule for the Python that it runs on.
        self._client = workshop.install("subflows-client", PYTHON)
        self._ip("limits", "set", "subflow", "1", "add_addr_accepted", "0")
        self._ip("endpoint", "add", REMOTE4_OTHER, "dev", "lo", "subflow")
        self._server = network.call(socket.socket, socket.AF_INET, socket.SOCK_STREAM, MPTCP)
        self._server.settimeout(PATIENCE)
        self._server.bind((REMOTE4, PORT))
        self._server.listen()

    def _ip(self, *words: str) -> None:
        self._network.call(subprocess.run, ["ip", "mptcp", *words], check=True)

    @contextmanager
    def connected(self) -> Iterator[int]:
        """While the block lasts a program is connected; gives its pid."""
        program = self._programs.start(self._client, "-c", CLIENT)
        connection, _ = self._server.accept()
        with connection:
            connection.sendall(connection.recv(5))
            yield program.pid
        program.communicate(timeout=PATIENCE)

    def joined(self) -> int:
        """Second subflows that reached the server so far."""
        text = self._network.call(Path("/proc/thread-self/net/netstat").read_text)
        names, values = (line.split() for line in text.splitlines() if line.startswith("MPTcpExt"))
        return int(values[names.index("MPJoinAckRx")])

    def wait_joined(self, number: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.joined() < number:
            assert time.monotonic() < deadline, "no second subflow"
            time.sleep(0.02)

    def close(self) -> None:
        self._server.close()
        self._ip("endpoint", "flush")


@pytest.fixture(scope="module")
def subflows(network: Network, workshop: Workshop, programs: Programs) -> Iterator[Subflows]:
    made = Subflows(network, workshop, programs)
    try:
        yield made
    finally:
        made.close()


def since_reload(agent: Agent) -> dict[str, object]:
    """What only an event of the policy in force has: a worker may still be at an earlier one's."""
    return {"process__executable": KERNEL, "aegis__generation": agent.status()["generation"]}


def of_the_kernel(agent: Agent, since: int) -> Event:
    """The event of a worker that connected to our server."""
    return agent.wait_event(since, destination__port=PORT, **since_reload(agent))


def test_a_kernel_thread_is_reported_as_what_it_is(agents: Agents, subflows: Subflows) -> None:
    """Without a rule it is an unconfigured program; the event says which thread it was."""
    agent, _ = agents.share(UNSAID)
    since, before = agent.mark(), subflows.joined()
    with subflows.connected() as pid:
        event = of_the_kernel(agent, since)
        subflows.wait_joined(before + 1)
    assert field(event, "rule.name") == "unconfigured"
    assert field(event, "process.name") == KERNEL
    assert field(event, "process.pid") != pid
    assert field(event, "process.command_line").startswith("kworker/")
    assert set(field(event, "aegis.identity")) == {"host-fs", "trusted", "kthread"}


def test_a_rule_for_kernel_threads_governs_them(agents: Agents, subflows: Subflows) -> None:
    """``path = "[kernel]"``: what it does not list is refused to them, and to nobody else."""
    agent, policy = agents.share(POLICY)
    since, before = agent.mark(), subflows.joined()
    with subflows.connected() as pid:
        event = of_the_kernel(agent, since)
        agent.settle()
        assert subflows.joined() == before
    assert field(event, "rule.name") == policy.rule(f'path = "{KERNEL}"')
    assert field(event, "aegis.verdict") == "blocked"
    assert [field(e, "aegis.verdict") for e in agent.settled_events(since, process__pid=pid)] == [
        "allowed"
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(POLICY.replace("8086", str(PORT)), id="a-rule-lists-it"),
        pytest.param(f'{UNSAID}[whitelist]\nprograms = ["{KERNEL}"]\n', id="whitelisted"),
        pytest.param(POLICY.replace('ports = ["8086"]', "ignore = true"), id="ignored"),
    ],
)
def test_what_kernel_threads_may_do_is_quiet(text: str, agents: Agents, subflows: Subflows) -> None:
    """They may, and nothing is said."""
    agent, _ = agents.share(text)
    since, before = agent.mark(), subflows.joined()
    with subflows.connected():
        subflows.wait_joined(before + 1)
    assert agent.settled_events(since, **since_reload(agent)) == []


# Copies itself into memory under the kernel's name, then becomes that.
FROM_MEMORY = """
import os, sys
fd = os.memfd_create("{name}")
os.write(fd, open(sys.argv[1], "rb").read())
os.execve(fd, ["{name}", *sys.argv[2:]], dict(os.environ))
"""


def test_no_file_is_a_kernel_thread(
    agents: Agents, servers: Servers, workshop: Workshop, programs: Programs
) -> None:
    """Neither a file of root's called so, nor one without a path, nor a name of one's own."""
    servers.open(8086, 8087)
    agent, _ = agents.share(POLICY)
    named = workshop.install(KERNEL)
    attempt = ("tcp", "127.0.0.1", "8087")
    for argv in (
        (named, *attempt),
        ("python3", "-c", FROM_MEMORY.format(name=KERNEL), named, *attempt),
        ("bash", "-c", f"exec -a '{KERNEL}' \"$@\"", "bash", workshop.prober, *attempt),
    ):
        since = agent.mark()
        outcome = programs.run(*argv)
        assert outcome.word == "OK", outcome.stderr
        [event] = agent.settled_events(since, process__pid=outcome.pid)
        assert field(event, "rule.name") == "unconfigured"
        assert "kthread" not in field(event, "aegis.identity")
