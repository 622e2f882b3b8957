# SPDX-License-Identifier: Apache-2.0
"""The kernel's own threads are one program, with a name that no file can have.

The second subflow of an MPTCP connection is connected by a kernel worker, in the
cgroup of the program whose connection it joins. Of a socket that is older than the
agent nobody knows whose it is, so that it is the worker's; of others it is the owner's.
"""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field, matches
from tests.kernel.conftest import Agents
from tests.kernel.inbound import Inbound
from tests.kernel.network import PRIVATE4, REMOTE4, REMOTE4_OTHER, Network
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
QUIET = f'[whitelist]\nprograms = ["{KERNEL}"]\n'

# Connects at once, and again for each line; the next line closes that one.
CLIENT = f"""
import socket, sys
def connect():
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP})
    client.connect(("{REMOTE4}", {PORT}))
    client.sendall(b"hello")
    client.recv(5)
    return client
old = connect()
for line in sys.stdin:
    with connect():
        sys.stdin.readline()
"""


class Subflows:
    """An MPTCP client, connected since before the agent started, and its server.

    Where the server announces a second address, a kernel worker joins it to the connection.
    """

    def __init__(self, network: Network, workshop: Workshop, programs: Programs) -> None:
        self._network = network
        self._ip("limits", "set", "subflow", "8", "add_addr_accepted", "8")
        self._server = network.call(socket.socket, socket.AF_INET, socket.SOCK_STREAM, MPTCP)
        self._server.settimeout(PATIENCE)
        self._server.bind(("0.0.0.0", PORT))  # both addresses
        self._server.listen()
        # Under a name of its own: the harness has a rule for the Python that it runs on.
        client = workshop.install("subflows-client", PYTHON)
        self._program = programs.start(client, "-c", CLIENT)
        self._old = self._accept()

    def _ip(self, *words: str) -> None:
        self._network.call(subprocess.run, ["ip", "mptcp", *words], check=True)

    def _accept(self) -> socket.socket:
        connection, _ = self._server.accept()
        connection.settimeout(PATIENCE)
        connection.sendall(connection.recv(5))
        return connection

    @contextmanager
    def announced(self) -> Iterator[None]:
        """While the block lasts the server has a second address, and says so."""
        self._ip("endpoint", "add", REMOTE4_OTHER, "id", "7", "dev", "lo", "signal")
        try:
            yield
        finally:
            self._ip("endpoint", "flush")

    @contextmanager
    def connected(self) -> Iterator[int]:
        """While the block lasts the client has another connection; gives its pid."""
        self._say("connect")
        with self._accept():
            yield self._program.pid
        if self._program.poll() is None:
            self._say("close")

    def ended(self) -> int:
        """The client's exit code."""
        return self._program.wait(timeout=PATIENCE)

    def _say(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()

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
        self._program.communicate(timeout=PATIENCE)
        self._old.close()
        self._server.close()


@pytest.fixture(scope="module")
def subflows(
    agents: Agents, network: Network, workshop: Workshop, programs: Programs
) -> Iterator[Subflows]:
    agents.close()
    made = Subflows(network, workshop, programs)
    try:
        yield made
    finally:
        made.close()


def test_a_server_older_than_the_agent_is_governed(
    subflows: Subflows, agents: Agents, workshop: Workshop, programs: Programs, network: Network
) -> None:
    """Whoever holds the socket when the agent starts is its owner.

    Here, since this is the agent that *subflows* is older than, too: a start takes long.
    """
    made = Inbound(agents, workshop, programs, network)
    try:
        server, port = made.ready("serves-choosy", "tcp", "::", 7050)
        udp, udp_port = made.ready("serves-choosy", "udp", "::", 7051)
        assert made.connects(REMOTE4, REMOTE4, port)
        made.apply()
        mark = made.agent.mark()
        assert made.keeps_out(REMOTE4, REMOTE4, port)
        event = made.agent.wait_event(mark, process__pid=server.pid)
        assert matches(event, aegis__hook="ingress", aegis__scope="peer", source__ip=REMOTE4)
        assert made.is_silent_to(REMOTE4, REMOTE4, udp_port)
        assert made.agent.wait_event(mark, process__pid=udp.pid)
        assert made.connects(PRIVATE4, PRIVATE4, port)
    finally:
        made.end()


def at_second_address(agent: Agent) -> dict[str, object]:
    """What only an event of the policy in force has: a worker may still be at an earlier one's."""
    return {
        "destination__ip": REMOTE4_OTHER,
        "destination__port": PORT,
        "aegis__generation": agent.status()["generation"],
    }


def test_a_kernel_thread_is_reported_as_what_it_is(agents: Agents, subflows: Subflows) -> None:
    """Without a rule it is an unconfigured program; the event says which thread it was."""
    agent, _ = agents.share(UNSAID)
    since, before = agent.mark(), subflows.joined()
    with subflows.announced():
        event = agent.wait_event(since, **at_second_address(agent))
        subflows.wait_joined(before + 1)
    assert field(event, "rule.name") == "unconfigured"
    assert field(event, "process.name") == KERNEL
    assert field(event, "process.command_line").startswith("kworker/")
    assert set(field(event, "aegis.identity")) == {"host-fs", "trusted", "kthread"}


def test_a_rule_for_kernel_threads_governs_them(agents: Agents, subflows: Subflows) -> None:
    """``path = "[kernel]"``: what it does not list is refused to them."""
    agent, policy = agents.share(POLICY)
    since, before = agent.mark(), subflows.joined()
    with subflows.announced():
        event = agent.wait_event(since, **at_second_address(agent))
        agent.settle()
        assert subflows.joined() == before
    assert field(event, "process.executable") == KERNEL
    assert field(event, "rule.name") == policy.rule(f'path = "{KERNEL}"')
    assert field(event, "aegis.verdict") == "blocked"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(POLICY.replace("8086", str(PORT)), id="a-rule-lists-it"),
        pytest.param(UNSAID + QUIET, id="whitelisted"),
        pytest.param(POLICY.replace('ports = ["8086"]', "ignore = true"), id="ignored"),
    ],
)
def test_what_kernel_threads_may_do_is_quiet(text: str, agents: Agents, subflows: Subflows) -> None:
    """They may, and nothing is said."""
    agent, _ = agents.share(text)
    since, before = agent.mark(), subflows.joined()
    with subflows.announced():
        subflows.wait_joined(before + 1)
    assert agent.settled_events(since, **at_second_address(agent)) == []


OWNED = f"""
[global]
detent = 0

[[app]]
exe = "subflows-client"
remotes = ["{REMOTE4}:{PORT}"]
actions = ["log", "ACTION"]
"""


def test_an_owner_may_have_further_subflows(agents: Agents, subflows: Subflows) -> None:
    """The worker is not asked about, even where its own rule would refuse it."""
    text = OWNED.replace(f'"{REMOTE4}:{PORT}"', f'"{PORT}"').replace("ACTION", "block")
    agent, _ = agents.share(text + POLICY[POLICY.index("[[app]]") :].replace("8086", "8087"))
    with subflows.connected():
        since, before = agent.mark(), subflows.joined()
        with subflows.announced():
            subflows.wait_joined(before + 1)
            # The old connection's is the kernel's own doing as before.
            event = agent.wait_event(since, **at_second_address(agent))
    assert field(event, "process.executable") == KERNEL
    assert not agent.settled_events(since, process__name="subflows-client")


@pytest.mark.parametrize("action", ["block", "kill"])
def test_a_further_subflow_is_its_owners(action: str, agents: Agents, subflows: Subflows) -> None:
    """Not listed: not joined, and told of as the client's doing.

    The worker cannot be killed and need not be: the agent kills the owner.
    """
    agent, policy = agents.share(OWNED.replace("ACTION", action) + QUIET)
    with subflows.connected() as pid:
        since, before = agent.mark(), subflows.joined()
        with subflows.announced():
            event = agent.wait_event(since, **at_second_address(agent))
            agent.settle()
            assert subflows.joined() <= before + 1  # the old connection's, which is the kernel's
    assert field(event, "rule.name") == policy.rule('exe = "subflows-client"')
    assert field(event, "aegis.verdict") == "blocked"
    assert field(event, "process.pid") == pid
    if action == "kill":
        assert subflows.ended() == -signal.SIGKILL


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
