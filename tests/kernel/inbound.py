# SPDX-License-Identifier: Apache-2.0
"""Servers and clients, for the tests of what comes in."""

import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.network import Network
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """\
[global]
unconfigured_actions = ["log"]
mode = "{mode}"
inbound = {inbound}

[[app]]
exe = "serves-portly"
listen = ["7001", "7002/udp"]
remotes = ["9"]
actions = ["log", "block"]

[[app]]
exe = "serves-choosy"
peers = ["10.0.0.0/8", "2001:db8::/64"]
remotes = ["9"]
actions = ["log", "block"]

[[app]]
exe = "serves-watched"
listen = []
detent = 0
actions = ["log"]

[[app]]
exe = "serves-free"
remotes = ["9"]
actions = ["log", "block"]
"""
GRACE = 0.7  # how long a client waits for what must not come


class Server:
    """A listener, and the lines it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def says(self) -> str:
        return self._lines.get(timeout=PATIENCE)

    def said_nothing(self) -> bool:
        return self._lines.empty()


class Inbound:
    """What the tests of this file share."""

    def __init__(
        self, agents: Agents, workshop: Workshop, programs: Programs, network: Network
    ) -> None:
        self._agents = agents
        self._workshop = workshop
        self._programs = programs
        self._network = network
        self._servers: list[Server] = []
        self.agent: Agent
        self.policy: PolicyFile

    def apply(self, mode: str = "enforce", inbound: str = "true") -> None:
        self.agent, self.policy = self.share(POLICY.format(mode=mode, inbound=inbound))

    def share(self, text: str) -> tuple[Agent, PolicyFile]:
        """An agent with this policy."""
        return self._agents.share(text)

    def program(self, name: str) -> Path:
        return self._workshop.install(name, self._workshop.listener)

    def serve(self, name: str, kind: str, address: str, port: int) -> Server:
        server = Server(self._programs.start(self.program(name), kind, address, str(port)))
        self.add(server)
        return server

    def add(self, server: Server) -> None:
        """To be ended with the others."""
        self._servers.append(server)

    def ready(self, name: str, kind: str, address: str, port: int) -> tuple[Server, int]:
        """A server that got its port; the port."""
        server = self.serve(name, kind, address, port)
        word, number = server.says().split()
        assert word == "ready", number
        return server, int(number)

    @contextmanager
    def client(self, kind: int, source: str) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with self._network.call(socket.socket, family, kind) as made:
            made.bind((source, 0))
            yield made

    def connects(self, source: str, target: str, port: int, patience: float = PATIENCE) -> bool:
        """Whether a handshake is completed within *patience* and the server speaks."""
        with self.client(socket.SOCK_STREAM, source) as client:
            client.settimeout(patience)
            try:
                client.connect((target, port))
            except TimeoutError:
                return False
            client.settimeout(PATIENCE)
            return client.recv(2) == b"hi"

    def answers(self, source: str, target: str, port: int, patience: float = PATIENCE) -> bool:
        """Whether a datagram comes back within *patience*."""
        with self.client(socket.SOCK_DGRAM, source) as client:
            client.settimeout(patience)
            client.sendto(b"x", (target, port))
            try:
                return client.recvfrom(9)[0] == b"x"
            except TimeoutError:
                return False

    def keeps_out(self, source: str, target: str, port: int) -> bool:
        """Whether no handshake is completed; its request is dropped on the spot, not later."""
        return not self.connects(source, target, port, GRACE)

    def is_silent_to(self, source: str, target: str, port: int) -> bool:
        """Whether a datagram is not answered."""
        return not self.answers(source, target, port, GRACE)

    def end(self) -> None:
        for server in self._servers:
            server.process.kill()
            server.process.wait()
        self._servers.clear()
