# SPDX-License-Identifier: Apache-2.0
"""Programs and connections that are older than the agent."""

import select
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE4_OTHER, Network
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

OFF, ON = 9701, 9702
OURS = 9711

POLICY = f"""
[global]
mode = "{{mode}}"
sever_existing = {{sever}}
unconfigured_actions = []

[whitelist]
programs = ["old-named"]

[[app]]
exe = "old-client"
ports = ["{ON}"]
actions = ["log", "block"]

[[app]]
exe = "old-multipath"
ports = ["{ON}"]
actions = ["log", "block"]

[[app]]
exe = "old-login"
ports = ["{ON}"]
actions = ["log", "block"]

[[app]]
exe = "old-killed-child"
remote = false
actions = ["log", "block"]

[[app]]
exe = "old-killed"
ports = ["{ON}"]
actions = ["log", "kill"]

[[app]]
exe = "old-told"
ports = ["{ON}"]
actions = ["log"]

[[app]]
exe = "old-ignored"
ignore = true

[[app]]
exe = "old-server"
listen = ["{ON + 20}"]
actions = ["log", "block"]

[[app]]
exe = "old-choosy"
peers = ["{REMOTE4_OTHER}"]
actions = ["log", "block"]

[[app]]
exe = "sshd"
listen = []
actions = ["log", "block"]

[[app]]
exe = "old-parent"
remote = true
"""


class OldServer:
    """Accepts in the test network; what it accepted stays open until one side ends it."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._listeners = {port: network.call(self._listen, port) for port in (OFF, ON)}
        self._accepted: list[socket.socket] = []

    @staticmethod
    def _listen(port: int) -> socket.socket:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

    def accept(self, port: int) -> socket.socket:
        self._listeners[port].settimeout(PATIENCE)
        connection, _ = self._listeners[port].accept()
        self.adopt(connection)
        return connection

    def adopt(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self._accepted.append(connection)

    def close(self) -> None:
        for opened in (*self._accepted, *self._listeners.values()):
            opened.close()


class Old:
    """A program and its connection, both older than the agent."""

    def __init__(self, process: subprocess.Popen[str], peer: socket.socket | None) -> None:
        self.process, self.peer = process, peer
        self.pid = process.pid

    def is_connected(self) -> bool:
        """Whether what the peer says arrives; False: the peer was told that it is over."""
        assert self.peer is not None
        readable, _, _ = select.select([self.peer], [], [], 0)
        if readable:
            with pytest.raises(ConnectionResetError):
                self.peer.recv(1)
            return False
        try:
            self.peer.sendall(b"hello\n")
        except ConnectionResetError:  # told meanwhile
            return False
        assert self.process.stdout is not None
        return self.process.stdout.readline() == "hello\n"


class Scene:
    """Starts programs that connect while nothing governs them."""

    def __init__(self, agents: Agents, workshop: Workshop, programs: Programs, network: Network):
        agents.close()
        self.agents, self.workshop, self.programs = agents, workshop, programs
        self.place = programs.place
        self.network = network
        self.server = OldServer(network)
        self._begun: list[subprocess.Popen[str]] = []
        self._agent: Agent | None = None
        self.policy: PolicyFile | None = None

    def tcp(self, name: str, port: int, address: str = REMOTE4, *wrapper: str | Path) -> Old:
        """ncat called *name*, connected."""
        return self._start(port, *wrapper, self._install(name), address, str(port))

    def python(self, name: str, port: int, code: str) -> Old:
        """This system's Python called *name* runs *code*, which connects to *port*."""
        program = self.workshop.install(name, Path("/usr/bin/python3").resolve())
        return self._start(port, "/usr/bin/env", "PYTHONHOME=/usr", program, "-uc", code)

    def serve(self, name: str, port: int = OURS) -> Old:
        """This system's Python called *name* listens on *port*, twice, and has one client: us."""
        program = self.workshop.install(name, Path("/usr/bin/python3").resolve())
        code = SERVER.format(port=port)
        process = self.programs.start("/usr/bin/env", "PYTHONHOME=/usr", program, "-uc", code)
        self._begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        peer = self.network.call(socket.create_connection, (REMOTE4, port))
        assert process.stdout.readline() == "accepted\n"
        self.server.adopt(peer)
        return Old(process, peer)

    def udp(self, name: str, port: int) -> Old:
        process = self.programs.start(self._install(name), "-u", REMOTE4, str(port))
        self._begun.append(process)
        wait_until_connected(process.pid, port)
        return Old(process, None)

    def _start(self, port: int, *argv: str | Path) -> Old:
        process = self.programs.start(*argv)
        self._begun.append(process)
        return Old(process, self.server.accept(port))

    def _install(self, name: str) -> Path:
        return self.workshop.install(name, "/usr/bin/ncat")

    def govern(
        self, mode: str = "enforce", sever: str = "false", wrapper: Sequence[str] = ()
    ) -> Agent:
        """Start the agent and wait for its sweep."""
        policy = POLICY.format(mode=mode, sever=sever)
        self._agent, self.policy = self.agents.start(policy, wrapper=wrapper)
        self._agent.wait_event(aegis__notice="existing-checked")
        return self._agent

    def close(self) -> None:
        for process in self._begun:
            process.kill()
            process.wait()
        self.server.close()


SERVER = """
import select, socket
sharer = socket.create_server(("", {port}), reuse_port=True)
server = socket.create_server(("", {port}), reuse_port=True)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", {port}))
print("listening")
client, _ = select.select([server, sharer], [], [])[0][0].accept()
print("accepted")
try:
    print(client.makefile().readline(), end="")
except OSError:  # cut off; it keeps its listeners, whose end is another matter
    pass
input()
"""


def wait_until_connected(pid: int, port: int) -> None:
    """A UDP socket with a peer at *port* shows up among those of the process's network."""
    for _ in range(int(PATIENCE * 50)):
        for line in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]:
            _, _, peer, state, *_ = line.split()
            if state == "01" and peer.endswith(f":{port:04X}"):
                return
        select.select([], [], [], 0.02)
    raise AssertionError("the program did not connect")
